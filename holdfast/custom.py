"""A user's own reward function by import path: found, tried before training, and held to what TRL wants of it.

A module is looked for on Python's path and in the directory where the command is run. Imports no torch.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import math
import os
import sys
from collections.abc import Callable
from numbers import Real
from pathlib import Path
from typing import Any

from holdfast.artifacts import file_digest
from holdfast.errors import UserError

Function = Callable[..., Any]


def loaded(where: str, path: str) -> Function:
    """The function at `module:function`; `where` is what an error calls it.

    Raises:
        UserError: it cannot be imported, is not there, cannot be called, or takes no **kwargs.
    """
    module, name = path.split(":")
    _search_here()
    try:
        function = getattr(importlib.import_module(module), name, None)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{where} cannot be imported ({reason}); run where {module}.py lies, or correct it") from error
    if not callable(function):
        what = "has no such function" if function is None else f"is no function but {type(function).__name__}"
        raise UserError(f"{where}: {module} {what}; name a function in it")
    kinds = [parameter.kind for parameter in inspect.signature(function).parameters.values()]
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        raise UserError(f"{where} takes no **kwargs; add them, since every column of the questions is handed over")
    return function


def source_digest(path: str) -> str:
    """sha256 of the module's file, so that a changed function is another stage; empty if there is none."""
    _search_here()
    try:
        spec = importlib.util.find_spec(path.split(":")[0])
    except (ImportError, ValueError):
        return ""
    origin = Path(spec.origin) if spec is not None and spec.origin else None
    return file_digest(origin) if origin is not None and origin.is_file() else ""


def _search_here() -> None:
    """Last, so that a file here hides no library."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    importlib.invalidate_caches()


def call(where: str, function: Function, completions: list[Any], columns: dict[str, Any]) -> list[float]:
    """What the function gives for each completion; NaN where it gives None (not applicable).

    Raises:
        UserError: it fails, or returns anything but one finite number or None a completion.
    """
    try:
        given = function(completions=completions, **columns)
        if inspect.isawaitable(given):
            given = asyncio.run(_awaited(given))
        values = list(given)
    except Exception as error:
        raise UserError(f"{where} failed ({type(error).__name__}: {error}); correct it") from error
    if len(values) != len(completions):
        raise UserError(f"{where} returned {len(values)} numbers for {len(completions)} completions; return one each")
    for value in values:
        if value is not None and not (isinstance(value, Real) and math.isfinite(value)):
            raise UserError(f"{where} returned {value!r:.80} for a completion; return a finite number, or None")
    return [math.nan if value is None else float(value) for value in values]


async def _awaited(given: Any) -> Any:
    return await given
