"""MLflow is the memory: a stage whose key belongs to a finished, intact run is not run again."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

import holdfast
from holdfast.artifacts import content_key, file_digest
from holdfast.jobs import AnyJob, MakeData, Result
from tasks.tracking import Store

PLACES = frozenset({"device", "threads", "compute"})
SOURCES = Path(holdfast.__file__).parent
SUFFIXES = frozenset({".py", ".j2", ".css"})


class Remembered(NamedTuple):
    """A finished run whose files are all there."""

    run_id: str
    path: Path
    result: Result


def stage_key(job: AnyJob) -> str:
    """sha256 of what decides a stage's result: its job without places and parallelism, the code, the lock file."""
    # The files that a data job reads are digested in its `inputs`.
    decisive = _without_places(job.model_dump(mode="json"), digested=isinstance(job, MakeData))
    return content_key({"job": decisive, "code": code_digest(), "lock": lock_digest()})


def find(store: Store, key: str, with_files: bool = True) -> Remembered | None:
    """The latest finished run with this key whose artifacts match their digests, or that merely has a result."""
    for run in store.with_key(key):
        if run.info.status != "FINISHED":
            continue
        for again in (False, True):
            path = store.artifacts(run, again)
            result = intact_result(path, with_files)
            if result is not None:
                return Remembered(run.info.run_id, path, result)
    return None


def intact_result(path: Path, with_files: bool = True) -> Result | None:
    """result.json of a stage's directory, if every file that it names is there with the digest it names."""
    try:
        result = Result.model_validate_json((path / "result.json").read_text())
    except (FileNotFoundError, ValidationError):
        return None
    whole = all((path / name).is_file() and file_digest(path / name) == sha for name, sha in result.files.items())
    return result if whole or not with_files else None


@functools.cache
def code_digest(sources: Path = SOURCES) -> str:
    """sha256 over the sources of the library, the report's template and style among them."""
    files = (path for path in sorted(sources.rglob("*")) if path.suffix in SUFFIXES)
    return content_key({path.relative_to(sources).as_posix(): file_digest(path) for path in files})


@functools.cache
def lock_digest(lock: Path = SOURCES.parent / "requirements.lock") -> str:
    """sha256 of the lock file; empty where the library is installed without one."""
    return file_digest(lock) if lock.is_file() else ""


def _without_places(content: Any, digested: bool) -> Any:
    """Without parallelism, and without every path whose content a digest beside it names."""
    if isinstance(content, dict):
        known = digested or "digest" in content
        places = PLACES | {"path"} if known else PLACES
        return {name: _without_places(value, digested) for name, value in content.items() if name not in places}
    if isinstance(content, list):
        return [_without_places(value, digested) for value in content]
    return content
