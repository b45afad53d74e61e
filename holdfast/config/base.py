"""The base of every config class, and the type of a path in one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict


class Config(BaseModel):
    """Frozen; a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def _expanded(path: Path) -> Path:
    """With `~` as the home directory, as a shell has it."""
    try:
        str(path).encode()
        return path.expanduser()
    except UnicodeEncodeError:
        raise ValueError("this path is no UTF-8; rename what it names") from None
    except RuntimeError:
        raise ValueError(f"there is no home directory {path.parts[0]}; write the whole path") from None


def _local(name: str) -> str:
    return str(_expanded(Path(name))) if name.startswith("~") else name


LocalPath = Annotated[Path, AfterValidator(_expanded)]
"""A file or directory; relative to where the command is run."""
HubOrPath = Annotated[str, AfterValidator(_local)]
"""An id on the Hugging Face Hub, or a directory."""
