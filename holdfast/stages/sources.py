"""Which sources decide a stage's result: the modules that its kind runs, and all that these import, directly or not.

A changed style sheet makes the report again and trains nothing; a changed loss trains again. Imports are read off the
sources, those inside functions too, so nothing is imported to know them. They are found by pattern: parsing all sources
takes a second, which every command would take.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

import holdfast
from holdfast.config.refs import content_key, file_digest

ROOT = Path(holdfast.__file__).parent
ENTRIES: dict[str, tuple[str, ...]] = {
    "data": ("holdfast.benchmarks.dataset",),
    "base": ("holdfast.models.tiny.build",),
    "check": ("holdfast.stages.preflight",),
    "trial": ("holdfast.stages.trial",),
    "trace_trial": ("holdfast.stages.trace_trial",),
    "ask_trial": ("holdfast.stages.ask_trial",),
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
"""What `holdfast.stages.process` imports to run a job, by its verb; what explains a lack of memory decides none."""
ALWAYS = "holdfast.stages.process"
IMPORT = re.compile(r"^( *)(?:from +(\w[\w.]*) +import +(\([^)]*\)|.*)|import +(.*))$", re.MULTILINE)
"""An import as ruff formats it: its indent, and its module and what of it, or its modules."""
NAME = re.compile(r"#.*|\bas +\w+|(\w[\w.]*)")
"""A name among those that are imported; what it is called here and what a comment says are none."""
PAGES = (".j2", ".css", ".mplstyle")
"""Templates and style sheets, of pages and of figures, count with the modules of their directory."""


@functools.cache
def source_digest(verb: str, root: Path = ROOT) -> str:
    """sha256 over the names and contents of a kind's sources."""
    files = {_modules(root)[name] for name in modules(verb, root)}
    files |= {page for place in {file.parent for file in files} for page in place.iterdir() if page.suffix in PAGES}
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


@functools.cache
def _modules(root: Path) -> dict[str, Path]:
    """Every module and package of the library, and its file."""
    files = {file.relative_to(root.parent).with_suffix("").parts: file for file in root.rglob("*.py")}
    return {".".join(parts).removesuffix(".__init__"): file for parts, file in files.items()}


@functools.cache
def _imported(name: str, root: Path) -> tuple[str, ...]:
    """A module's package and what it imports; of the process, whose functions import every kind, its head alone."""
    named = _named(_modules(root)[name].read_text(), name == ALWAYS)
    package = [] if name == root.name else [name.rpartition(".")[0]]
    return (*package, *(module for module in named if module in _modules(root)))


def _named(source: str, head: bool) -> tuple[str, ...]:
    """All that may be a module in the imports of a source, or in those of its head."""
    found: dict[str, None] = {}
    for indent, module, names, plain in IMPORT.findall(source):
        if not (head and indent):
            listed = [name for name in NAME.findall(names or plain) if name]
            found |= dict.fromkeys([module, *(f"{module}.{name}" for name in listed)] if module else listed)
    return tuple(found)
