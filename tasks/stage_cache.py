"""The cache of stages is MLflow: a stage whose key belongs to a finished, intact run is not run again."""

from __future__ import annotations

import functools
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, TypeAdapter, ValidationError

import holdfast
from holdfast.config.jobs import (
    Account,
    AnyJob,
    Check,
    Divided,
    Evaluate,
    Job,
    MakeData,
    Predict,
    Sample,
    Select,
    Train,
)
from holdfast.config.measurement import Evaluation, Influence, Vllm
from holdfast.config.methods import GRPO, SFT, ModelTeacher, Selection, Stage, TeacherFile
from holdfast.config.mitigations import Mitigations
from holdfast.config.model import Model, Recipe
from holdfast.config.prior import Imported, Prior
from holdfast.config.refs import DataRef, FileRef, ModelRef, Stamp, content_key, file_digest, stamp_of
from holdfast.config.results import Result, RunRecord
from holdfast.config.study import Study
from holdfast.config.targets import Banner
from holdfast.stages.sources import PAGES, source_digest
from tasks.artifact_cache import inside
from tasks.tracking import Store

IGNORED_FIELDS: dict[type[BaseModel], frozenset[str]] = {
    Job: frozenset({"device", "threads"}),
    Divided: frozenset({"gpus"}),
    Train: frozenset({"data", "evaluation", "strategy", "keep_steps"}),
    Account: frozenset({"recorded"}),
    Check: frozenset({"settled"}),
    Sample: frozenset({"data", "batch_size"}),
    **dict.fromkeys((Evaluate, Predict), frozenset({"batch_size"})),
    Study: frozenset({"compute", "checkpoints", "budget"}),
    Vllm: frozenset({"gpu_memory_utilization"}),
    Recipe: frozenset({"threads"}),
    **dict.fromkeys((TeacherFile, ModelTeacher), frozenset({"path"})),
    **dict.fromkeys((FileRef, DataRef, ModelRef, RunRecord), frozenset({"path"})),
}
"""Fields that say where and with how many threads, where a file lies whose digest stands beside it, or what is only
asked along the way. By class: what a user has named, a reward or an argument, may have any name."""
LATER_FIELDS: dict[type[BaseModel], frozenset[str]] = {
    Model: frozenset({"attention", "min_pixels", "max_pixels"}),
    ModelRef: frozenset({"attention", "min_pixels", "max_pixels"}),
    Study: frozenset({"targets", "order", "predictors"}),
    MakeData: frozenset({"targets"}),
    Stage: frozenset({"target", *Mitigations.model_fields}),
    SFT: frozenset({"talr"}),
    GRPO: frozenset({"rollout_difference"}),
    Prior: frozenset({"train"}),
    Imported: frozenset({"train_path"}),
    Banner: frozenset({"test_path"}),
    Train: frozenset({"keep_dtype", "priors", "earlier", "replayed", "teacher"}),
    Sample: frozenset({"replayed", "vllm"}),
    **dict.fromkeys((Evaluate, Predict), frozenset({"vllm"})),
    Evaluation: frozenset({"keep_dtype", "vllm"}),
    Select: frozenset({"ledger"}),
    Selection: frozenset({"drop", "arm"}),
    Influence: frozenset({"batch_tokens", "layers", "dtype", "memory_gb", "ledger"}),
}
"""Fields that came after studies had keys: their defaults are what was done before, and are no part of a key."""
ADDRESSES = frozenset(
    {"vllm_server_base_url", "vllm_server_host", "vllm_server_port", "vllm_server_timeout", "vllm_group_port"}
)
"""TRL's arguments that say where a server is."""
DATA_PATHS = frozenset({"path", "validation_path", "train_path", "test_path"})
RESULT = "holdfast.result"
"""Tag of a recorded stage: the digest of its result.json, which has those of all other files."""
RETIRED = "retired.json"
"""Beside a training's result.json: its files that `holdfast gc` removed because the study's `checkpoints` said so."""
NAMES: TypeAdapter[frozenset[str]] = TypeAdapter(frozenset[str])
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
            path = store.artifacts.of(run, again)
            result = intact_result(path) if with_files else recorded_result(path)
            if result is not None and run.data.tags.get(RESULT) in (None, file_digest(path / "result.json")):
                return CachedStage(run.info.run_id, path, result)
    return None


def intact_result(path: Path, *elsewhere: Path) -> Result | None:
    """result.json of a stage's directory, if every file that it names is there, or elsewhere, with that digest.

    Files that a finished training did not have to keep are not looked for. One with the size and time that stand there
    is taken for unchanged; `holdfast verify` reads it all the same.
    """
    result = recorded_result(path)
    return result if result is not None and not changed_files(path, result, *elsewhere) else None


def recorded_result(path: Path) -> Result | None:
    """result.json of a stage's directory, if it can be read and names nothing outside."""
    try:
        result = Result.model_validate_json((path / "result.json").read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    named = (*result.files, *(kept.path for kept in result.checkpoints))
    return result if all(inside(name) for name in named) else None


def changed_files(path: Path, result: Result, *elsewhere: Path) -> list[str]:
    """Files of a stage that are gone or differ from its result; not read where size and time agree."""
    wanted = {name: digest for name, digest in result.files.items() if name not in retired_files(path)}
    places = (path, *elsewhere)
    return [
        name
        for name, digest in wanted.items()
        if not any(_unchanged(place / name, digest, result.stamps.get(name)) for place in places)
    ]


def _unchanged(file: Path, digest: str, stamp: Stamp | None) -> bool:
    """A copy from a server gets the recorded time once its bytes were right, so that they are not read again."""
    if not file.is_file():
        return False
    if stamp is not None and stamp_of(file) == stamp:
        return True
    if file_digest(file) != digest:
        return False
    if stamp is not None:
        with suppress(OSError):
            os.utime(file, ns=(stamp[1], stamp[1]))
    return True


def retired_files(path: Path) -> frozenset[str]:
    """Files of checkpoints that a finished training did not have to keep; it is found without them."""
    try:
        return NAMES.validate_json((path / RETIRED).read_bytes())
    except (FileNotFoundError, ValidationError):
        # A list that is damaged lets nothing go: such a training is not found, and made anew.
        return frozenset()


@functools.cache
def code_digest(sources: Path = SOURCES) -> str:
    """sha256 over the sources of the library, the report's template and style among them."""
    files = (path for path in sorted(sources.rglob("*")) if path.suffix in SUFFIXES)
    return content_key({path.relative_to(sources).as_posix(): file_digest(path) for path in files})


@functools.cache
def lock_digest(lock: Path = SOURCES.parent / "requirements.lock") -> str:
    """sha256 of the lock file; empty where the library is installed without one."""
    return file_digest(lock) if lock.is_file() else ""


def key_content(job: Any, digested: frozenset[str] = frozenset()) -> Any:
    """A job as JSON without what changes no result, and without fields whose files are digested elsewhere.

    The files that a data job reads are digested in its `inputs`, so none of their paths counts.
    """
    return _without_ignored(job, DATA_PATHS if isinstance(job, MakeData) else digested)


def _without_ignored(content: Any, digested: frozenset[str]) -> Any:
    if isinstance(content, BaseModel):
        ignored = digested.union(*(names for kind, names in IGNORED_FIELDS.items() if isinstance(content, kind)))
        later = {name for kind, names in LATER_FIELDS.items() if isinstance(content, kind) for name in names}
        fields = [
            name
            for name, field in type(content).model_fields.items()
            if name not in ignored and not (name in later and getattr(content, name) == field.default)
        ]
        kept = {name: _without_ignored(getattr(content, name), digested) for name in fields}
        if isinstance(content, Stage):
            kept["trainer"] = {name: value for name, value in kept["trainer"].items() if name not in ADDRESSES}
        return kept
    if isinstance(content, dict):
        return {name: _without_ignored(value, digested) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_without_ignored(value, digested) for value in content]
    return os.fspath(content) if isinstance(content, Path) else content
