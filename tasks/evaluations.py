"""What checkpoints have been asked already: files of records by unit key, and their metrics on the runs that trained.

A unit is one checkpoint and one benchmark. Another benchmark, or more questions, are new units; the old ones are found.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from holdfast.config.jobs import Evaluate
from holdfast.config.refs import FileRef, ModelRef, content_key, known_digest
from holdfast.config.results import Result
from tasks import slots, worker
from tasks.artifact_cache import inside
from tasks.tracking import Point, Store

MODELS = "holdfast.models"
"""Tag of an evaluation: the beginnings of its models' digests."""
EVALUATED = "holdfast.evaluated"
"""Tag of a training: which results of evaluations stand on its run."""
RECORD = ("job.json", "metrics.jsonl")
LENGTH = 12


def model_tag(models: Iterable[ModelRef]) -> str:
    """The tag by which evaluations of a model are searched."""
    return " ".join(model.digest[:LENGTH] for model in models)


def known_units(store: Store, models: Iterable[ModelRef]) -> dict[str, FileRef]:
    """By key, the file of every unit of these models that a finished evaluation left and that is as it left it."""
    found: dict[str, FileRef] = {}
    runs = runs_about(store, [model.digest for model in models])
    for run in runs:
        found = _units(store, run) | found
    for run in runs:
        _forget_work(store, run.data.tags["holdfast.stage_key"], found)
    return found


def _forget_work(store: Store, key: str, found: dict[str, FileRef]) -> None:
    """Remove what an evaluation left that was killed once its run had finished: no attempt comes back to it, since all
    its units are found."""
    work = worker.work_directory(store.root)
    try:
        units = Evaluate.model_validate_json((work / key / "job.json").read_text()).units
    except (FileNotFoundError, ValueError):
        return
    if units.keys() <= found.keys():
        with slots.file_lock(work / "locks" / key, worker.stopping):
            shutil.rmtree(work / key, ignore_errors=True)


def runs_about(store: Store, digests: Iterable[str]) -> list[Any]:
    """The finished evaluations of models with these digests, each once."""
    found: dict[str, Any] = {}
    for digest in digests:
        for run in store.search(f"attributes.status = 'FINISHED' and tags.`{MODELS}` LIKE '%{digest[:LENGTH]}%'"):
            found.setdefault(run.info.run_id, run)
    return list(found.values())


def _units(store: Store, run: Any) -> dict[str, FileRef]:
    place = store.artifacts.of(run)
    try:
        result = Result.model_validate_json((place / "result.json").read_text())
        job = Evaluate.model_validate_json((place / "job.json").read_text())
    except (FileNotFoundError, ValueError):
        return {}
    if not all(_intact(place / name, result.files[name]) for name in RECORD if name in result.files):
        return {}
    return {
        key: FileRef(path=place / name, digest=result.files[name])
        for key, name in job.units.items()
        if name in result.files and inside(name) and _intact(place / name, result.files[name])
    }


def _intact(path: Path, digest: str) -> bool:
    return path.is_file() and known_digest(path) == digest


def log_evaluation(store: Store, run_id: str, metrics: Mapping[int, Mapping[str, float]]) -> None:
    """Log what a training's checkpoints scored on its run, by step, unless the run says so already."""
    # Two studies that share a training log it once.
    with slots.file_lock(worker.work_directory(store.root) / "locks" / run_id, worker.stopping):
        _log_evaluation(store, run_id, metrics)


def _same(known: float | None, value: float) -> bool:
    """Whether a number is there already; asked beside other questions, a model says it with other last digits, and a
    divergence is a small difference of large numbers."""
    return known is not None and math.isclose(known, value, rel_tol=1e-5, abs_tol=1e-6)


def _log_evaluation(store: Store, run_id: str, metrics: Mapping[int, Mapping[str, float]]) -> None:
    said = content_key({str(step): dict(found) for step, found in metrics.items()})
    run = store.run(run_id)
    if run.data.tags.get(EVALUATED) == said:
        return
    known = store.values(run_id, {name for found in metrics.values() for name in found})
    models = store.models.ids(run)
    points = [
        Point(name, value, step, time.time(), models.get(step, ""))
        for step, found in metrics.items()
        for name, value in found.items()
        if not _same(known.get((name, step)), value)
    ]
    if points:
        store.log(run_id, points)
    store.tag(run_id, {EVALUATED: said})
