"""Which sources decide a stage's result: the modules that its kind runs, and all that these import, directly or not.

A changed style sheet makes the report again and trains nothing; a changed loss trains again. Imports are read off the
sources, those inside functions too, so nothing is imported to know them.
"""

from __future__ import annotations

import ast
import functools
import threading
from collections.abc import Iterator
from pathlib import Path

import holdfast
from holdfast.config.refs import content_key, file_digest

ROOT = Path(holdfast.__file__).parent
ENTRIES: dict[str, tuple[str, ...]] = {
    "data": ("holdfast.benchmarks.dataset",),
    "base": ("holdfast.models.tiny.build",),
    "check": ("holdfast.stages.preflight",),
    "trial": ("holdfast.stages.trial",),
    "evaluate": ("holdfast.evaluation.stage",),
    "sample": ("holdfast.evaluation.sampling",),
    "train": ("holdfast.training.stage", "holdfast.evaluation.stage", "holdfast.models.load"),
    "interpolate": ("holdfast.models.interpolate",),
    "select": ("holdfast.influence.selection",),
    "influence": ("holdfast.influence.trace", "holdfast.stages.on_policy", "holdfast.models.load"),
    "ledger": ("holdfast.stages.ledger", "holdfast.models.load"),
    "predictors": ("holdfast.evaluation.predictors",),
    "compare": ("holdfast.report.study",),
}
"""What `holdfast.stages.process` imports to run a job, by its verb."""
ALWAYS = "holdfast.stages.process"
PARSING = threading.Lock()
"""Held while sources are parsed. Arms are threads, and in two at once CPython's parser fails now and then ("AST
constructor recursion depth mismatch")."""
PAGES = (".j2", ".css", ".mplstyle")
"""Templates and style sheets, of pages and of figures, count with the modules of their directory."""


@functools.cache
def source_digest(verb: str, root: Path = ROOT) -> str:
    """sha256 over the names and contents of a kind's sources."""
    with PARSING:
        found = modules(verb, root)
    files = {_file(name, root) for name in found}
    files |= {page for file in files for page in file.parent.iterdir() if page.suffix in PAGES}
    return content_key({file.relative_to(root).as_posix(): file_digest(file) for file in sorted(files)})


def modules(verb: str, root: Path = ROOT) -> set[str]:
    """The modules of the library that a kind of stage runs, by name."""
    waiting = [ALWAYS, *ENTRIES[verb]]
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _imported(name, root)
    return found


def _imported(name: str, root: Path) -> Iterator[str]:
    """A module's package and what it imports; of the process, whose functions import every kind, its head alone."""
    if name != root.name:
        yield name.rpartition(".")[0]
    for module in _named(_file(name, root).read_text(), name == ALWAYS):
        if module.split(".")[0] == root.name and _file(module, root).is_file():
            yield module


@functools.cache
def _named(source: str, head: bool) -> tuple[str, ...]:
    """All that may be a module in the imports of a source, or in those of its head; most kinds share most sources."""
    tree = ast.parse(source)
    found: dict[str, None] = {}
    for node in tree.body if head else ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= dict.fromkeys([node.module, *(f"{node.module}.{alias.name}" for alias in node.names)])
        if isinstance(node, ast.Import):
            found |= dict.fromkeys(alias.name for alias in node.names)
    return tuple(found)


def _file(name: str, root: Path) -> Path:
    path = root.joinpath(*name.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
