"""The cache of stages is MLflow: a stage whose key belongs to a finished, intact run is not run again."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

import holdfast
from holdfast.config.jobs import AnyJob, Evaluate, Job, MakeData, Result, RunRecord, Sample, Train
from holdfast.config.model import Recipe
from holdfast.config.refs import DataRef, FileRef, ModelRef, content_key, file_digest
from holdfast.config.study import Study
from holdfast.stages.sources import PAGES, source_digest
from tasks.tracking import Store

IGNORED_FIELDS: dict[type[BaseModel], frozenset[str]] = {
    Job: frozenset({"device", "threads"}),
    Train: frozenset({"data", "evaluation"}),
    Sample: frozenset({"data", "batch_size"}),
    Evaluate: frozenset({"batch_size"}),
    Study: frozenset({"compute"}),
    Recipe: frozenset({"threads"}),
    **dict.fromkeys((FileRef, DataRef, ModelRef, RunRecord), frozenset({"path"})),
}
"""Fields that say where and with how many threads, where a file lies whose digest stands beside it, or what is only
asked along the way. By class: what a user has named, a reward or an argument, may have any name."""
DATA_PATHS = frozenset({"path", "validation_path"})
SOURCES = Path(holdfast.__file__).parent
SUFFIXES = frozenset({".py", *PAGES})


class CachedStage(NamedTuple):
    """A finished run whose files are all there."""

    run_id: str
    path: Path
    result: Result


def stage_key(job: AnyJob) -> str:
    """sha256 of what decides a result: the job without places and parallelism, its kind's sources, the lock file."""
    return content_key({"job": key_content(job), "code": source_digest(job.verb), "lock": lock_digest()})


def find_cached(store: Store, key: str, with_files: bool = True) -> CachedStage | None:
    """The latest finished run with this key whose artifacts match their digests, or that merely has a result."""
    for run in store.with_key(key):
        if run.info.status != "FINISHED":
            continue
        for again in (False, True):
            path = store.artifacts(run, again)
            result = intact_result(path, with_files)
            if result is not None:
                return CachedStage(run.info.run_id, path, result)
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


def key_content(job: Any) -> Any:
    """A job as JSON without what changes no result.

    The files that a data job reads are digested in its `inputs`, so none of their paths counts.
    """
    return _without_ignored(job, DATA_PATHS if isinstance(job, MakeData) else frozenset())


def _without_ignored(content: Any, digested: frozenset[str]) -> Any:
    if isinstance(content, BaseModel):
        ignored = digested.union(*(names for kind, names in IGNORED_FIELDS.items() if isinstance(content, kind)))
        fields = [name for name in type(content).model_fields if name not in ignored]
        return {name: _without_ignored(getattr(content, name), digested) for name in fields}
    if isinstance(content, dict):
        return {name: _without_ignored(value, digested) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_without_ignored(value, digested) for value in content]
    return os.fspath(content) if isinstance(content, Path) else content
