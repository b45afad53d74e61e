"""The commit of the code that runs, whether its sources are the commit's, and a worktree at another commit."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

from holdfast.errors import UserError, reason, writing
from tasks.stage_cache import SOURCES

CODE = SOURCES.parent
"""Where the packages lie; a git repository where holdfast was cloned."""
DECIDING = ("holdfast", "tasks", "flows", "requirements.lock")
"""What of it decides results."""


@functools.cache
def commit(code: Path = CODE) -> str:
    """The commit that is checked out; empty where the code lies in no git repository of its own."""
    top = _git(code, "rev-parse", "--show-toplevel")
    return (_git(code, "rev-parse", "HEAD") or "") if top and Path(top).resolve() == code.resolve() else ""


def is_changed(code: Path = CODE) -> bool:
    """Whether sources or lock file differ from the commit."""
    return bool(commit(code) and _git(code, "status", "--porcelain", "--", *DECIDING))


def has_commit(wanted: str, code: Path = CODE) -> bool:
    """Whether git still has a commit."""
    return _git(code, "cat-file", "-e", f"{wanted}^{{commit}}") is not None


def add_worktree(place: Path, wanted: str, code: Path = CODE) -> None:
    """Check a commit out into a new directory. UserError where git refuses."""
    with writing(place):
        place.parent.mkdir(parents=True, exist_ok=True)
    if _git(code, "worktree", "add", "--quiet", "--detach", os.fspath(place), wanted) is None:
        raise UserError(f"{place}: git makes no worktree there; see `git worktree list` in {code}, then `prune`.")


def make_environment(place: Path) -> Path:
    """A fresh environment with the worktree's locked versions, as its `make setup` makes it; returns its Python.

    UserError where that fails.
    """
    python = place / ".venv" / "bin" / "python"
    if python.is_file() and (place / ".venv" / "ready").is_file():
        return python
    # A path of another environment would go before the new one's packages.
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    command = ["make", "-C", os.fspath(place), "setup", f"PYTHON={_plain_python()}"]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UserError(f"{place}: make is not installed; install it, or set up the environment there.") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines() or ["without a word"]
        raise UserError(
            f"{place}: its environment cannot be made ({reason(RuntimeError(said[-1]))}); run `make setup` there."
        )
    return python


def _plain_python() -> str:
    """The Python under this environment, which may go away."""
    return os.path.realpath(sys.executable)


def _git(code: Path, *arguments: str) -> str | None:
    """What a git command prints; None where it fails."""
    command = ["git", "-C", os.fspath(code), *arguments]
    # Hooks and GUIs set these for another repository.
    environment = {name: value for name, value in os.environ.items() if name not in ("GIT_DIR", "GIT_WORK_TREE")}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
