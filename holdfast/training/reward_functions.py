"""A user's own reward function by import path: found, tried before training, and held to what TRL wants of it.

A module is looked for on Python's path and in the directory where the command is run. Imports no torch.
"""

from __future__ import annotations

import ast
import asyncio
import importlib
import importlib.machinery
import inspect
import math
import os
import sys
import sysconfig
import threading
from collections.abc import Callable
from numbers import Real
from pathlib import Path
from typing import Any

from holdfast.config.refs import content_key, file_digest
from holdfast.errors import UserError

Function = Callable[..., Any]
PARSING = threading.Lock()
"""Held while a module is parsed. Arms are threads, and in two at once CPython's parser fails now and then ("AST
constructor recursion depth mismatch")."""


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
    """sha256 of the module and of all that it imports from the user's directories: a change makes another stage.

    Followed are import statements, wherever they stand in a module; installed packages are the lock file's. Empty where
    there is no such module.
    """
    _search_here()
    module = path.split(":")[0]
    found: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        origin = _origin(name)
        if name in found or origin is None or (name != module and _installed(origin)):
            continue
        found[name] = file_digest(origin)
        # What Python runs before a module of a package.
        parents = [name.rpartition(".")[0]] if "." in name else []
        waiting += parents + (_imported(origin, name) if origin.suffix == ".py" else [])
    return content_key(found) if module in found else ""


def _origin(module: str) -> Path | None:
    """The file of a module, found without running its package, as `importlib.util.find_spec` would."""
    top, *below = module.split(".")
    try:
        spec = importlib.machinery.PathFinder.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not below:
        return Path(spec.origin) if spec.has_location and spec.origin else None
    places = [Path(place).joinpath(*below) for place in spec.submodule_search_locations or ()]
    files = [file for place in places for file in (place / "__init__.py", place.with_suffix(".py"))]
    return next((file for file in files if file.is_file()), None)


def _installed(origin: Path) -> bool:
    """Whether a file belongs to Python or to an installed package."""
    places = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return any(origin.is_relative_to(place) for place in places)


def _imported(origin: Path, module: str) -> list[str]:
    """Every module that a file may import: of `from a import b`, a and a.b."""
    try:
        with PARSING:
            tree = ast.parse(origin.read_bytes())
    except (SyntaxError, ValueError):
        return []
    package = module if origin.name == "__init__.py" else module.rpartition(".")[0]
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            base = ".".join(part for part in (above, node.module or "") if part)
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return [name for name in names if name]


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
