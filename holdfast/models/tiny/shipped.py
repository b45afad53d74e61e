"""The bundled base model that comes with holdfast: every machine starts from the same weights.

A base that is built depends a little on the machine that builds it, and what a study finds depends on the base.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from holdfast.config.refs import ModelRef, directory_digest
from holdfast.errors import UserError

DIRECTORY = Path(__file__).parent / "base"
RECORD = Path(__file__).parent / "base.json"
"""Beside the weights: their digest, the seed, recipe and command that built them, and what they score."""


def record() -> dict[str, Any]:
    """How the base was built and what it scored then."""
    return json.loads(RECORD.read_text())


def shipped_base() -> ModelRef:
    """The base model.

    Raises:
        UserError: its files are not those that were recorded.
    """
    digest = directory_digest(DIRECTORY) if DIRECTORY.is_dir() else ""
    if digest != record()["digest"]:
        raise UserError(
            f"model.path: the bundled base in {DIRECTORY} is not the recorded one; install holdfast again or restore "
            "it with `git checkout`, or set model.seed to build another"
        )
    return ModelRef(path=str(DIRECTORY), digest=digest)
