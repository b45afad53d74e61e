"""What takes room and nobody needs: files of stages that no report is made from, and interrupted work of old keys.

Removing something twice does no harm, so that an interrupted cleaning is continued by the next one.
"""

from __future__ import annotations

import fcntl
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from holdfast.config.jobs import STEPS, AnyJob
from holdfast.errors import UserError, writing
from tasks import worker
from tasks.artifacts import local_artifacts
from tasks.disk_use import size_of
from tasks.exported_runs import IMPORT
from tasks.imported_runs import REMOVED
from tasks.needed_runs import Needed
from tasks.portable_text import WEIGHTS
from tasks.recorded import compared_by
from tasks.run_owner import owner_alive
from tasks.stage_cache import RETIRED, find_cached, recorded_result, retired_files, stage_key
from tasks.study_export import referred
from tasks.study_import import discard
from tasks.tracking import Store

SAMPLES = "samples.parquet"
STEP = re.compile(r"(checkpoints|moments)/step-(\d+)(?![\d])")
JOB: TypeAdapter[AnyJob] = TypeAdapter(AnyJob)


class Garbage(NamedTuple):
    """Something that can go."""

    what: str
    why: str
    size: int
    """In bytes."""
    remove: Callable[[], None]


def interrupted_work(root: Path, store: Store) -> Iterator[Garbage]:
    """Directories of interrupted stages that no study would continue."""
    work = worker.work_directory(root)
    for place in sorted(work.glob("*")):
        key = place.name.removesuffix(".partial")
        if place.name == "locks" or place.suffix == f".{STEPS}" or not place.is_dir():
            continue
        with _held(work / "locks" / key) as free:
            why = _why_never_continued(place, key, store) if free else ""
        if why:
            yield Garbage(f"interrupted work {key[:12]}", why, size_of(place), partial(_drop_work, place, key))


def dead_imports(root: Path, store: Store, needed: Needed) -> Iterator[Garbage]:
    """What imports left that were killed: unpacked archives, and runs that are not whole, which nothing finds."""
    why = "its import was killed"
    for place in sorted((root / "mlruns" / "imports").glob("*/")):
        with _held(place.with_suffix(".lock")) as free:
            size = size_of(place) if free else 0
        if free:
            yield Garbage(f"unpacked archive {place.name[:12]}", why, size, partial(_drop_unpacked, place))
    for run in needed.runs:
        tags, files = run.data.tags, local_artifacts(run)
        at_work = run.info.status == "RUNNING" and owner_alive(tags)
        if IMPORT in tags and "holdfast.kind" not in tags and not at_work:
            size = size_of(files) if files is not None and files.is_dir() else 0
            name = f"half of {run.info.run_name} ({run.info.run_id[:8]})"
            yield Garbage(name, why, size, partial(_drop_half, store, run.info.run_id))


def _drop_unpacked(place: Path) -> None:
    with _held(place.with_suffix(".lock")) as free:
        if free:
            _drop(place)


def _drop_half(store: Store, run_id: str) -> None:
    # The next import of the archive may have deleted it meanwhile.
    run = store.find(run_id)
    if run is not None:
        discard(store, run)


def waiting_steps(root: Path) -> Iterator[Garbage]:
    """Steps of trainings whose ledger did not come; it can train once more."""
    for place in sorted(worker.work_directory(root).glob(f"*.{STEPS}")):
        yield Garbage(f"steps of {place.name[:12]}", "they wait for a ledger", size_of(place), partial(_drop, place))


def _why_never_continued(place: Path, key: str, store: Store) -> str:
    try:
        job = JOB.validate_json((place / "job.json").read_bytes())
    except (FileNotFoundError, ValidationError):
        return "no version of holdfast here can read its job"
    if stage_key(job) != key:
        return "code or locked libraries have changed since, so its stage has another key"
    return "its stage has finished" if find_cached(store, key) is not None else ""


def _drop_work(place: Path, key: str) -> None:
    with _held(place.parent / "locks" / key) as free:
        if free:
            _drop(place)


@contextmanager
def _held(lock: Path) -> Iterator[bool]:
    """Whether nobody holds a stage's lock; nobody takes it meanwhile."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def old_stages(root: Path, store: Store, needed: Needed) -> Iterator[Garbage]:
    """Checkpoints and samples of stages that no report is made from, and local copies of such a stage's artifacts."""
    for run in needed.runs:
        why = needed.why_not(run) if "holdfast.stage_key" in run.data.tags else ""
        places = _heavy(root, store, run) if why else []
        if places:
            size = sum(map(size_of, places))
            yield Garbage(_name(run), why, size, partial(_drop_files, store, run, places, why))


def deleted_runs(store: Store, needed: Needed) -> Iterator[Garbage]:
    """Files of runs that somebody deleted in MLflow, which hides them and keeps all that they have.

    What is left of them is for `mlflow gc`, which even for named runs removes all deleted experiments and models.
    """
    for run in store.deleted():
        place = local_artifacts(run)
        if place is not None and place.is_dir() and run.info.run_id not in needed.referred:
            name = f"files of {run.info.run_name} ({run.info.run_id[:8]})"
            yield Garbage(name, "the run was deleted in MLflow", size_of(place), partial(_drop, place))


def retired_checkpoints(store: Store, needed: Needed) -> Iterator[Garbage]:
    """Checkpoints that a study's own setting lets go once it has a report; its trainings are found without them."""
    wanted = _kept_steps(store, needed)
    for run in store.with_ids(wanted):
        place = local_artifacts(run)
        result = recorded_result(place) if place is not None else None
        if place is None or result is None:
            continue
        steps = {one.step for one in result.checkpoints} - wanted[run.info.run_id]
        gone = [name for name in result.files if _step(name) in steps and (place / name).is_file()]
        if gone:
            why = f"`checkpoints` of {run.data.tags['holdfast.study']} keeps {_listed(wanted[run.info.run_id])}"
            size = sum(size_of(place / name) for name in gone)
            yield Garbage(_name(run), why, size, partial(_retire, place, gone))


def _kept_steps(store: Store, needed: Needed) -> dict[str, set[int]]:
    """By run of a training in a report, the steps that some report's study, or the registry, wants to keep.

    Without runs that a report names which cannot be read: what its studies want to keep is not known.
    """
    wanted: dict[str, set[int]] = {}
    unreadable = [parent for parent in needed.reported.values() if unreadable_report(store, parent)]
    untouched = set(referred(store, unreadable))
    for parent in needed.reported.values():
        compared = None if parent in unreadable else compared_by(parent, store)
        for study in () if compared is None else compared.studies:
            for run in (run for run in study.runs if run.kind == "train"):
                result = recorded_result(Path(run.path))
                if result is not None:
                    steps = sorted(one.step for one in result.checkpoints)
                    kept = _chosen(study.study.checkpoints, steps) | needed.registered.get(run.run_id, set())
                    wanted[run.run_id] = wanted.get(run.run_id, set()) | kept
    return {run_id: steps for run_id, steps in wanted.items() if run_id not in untouched}


def unreadable_report(store: Store, parent: Any) -> str:
    """Why a run's report cannot be read, in a sentence; empty where it can. All that it names is kept."""
    try:
        compared_by(parent, store)
    except UserError as error:
        return str(error)
    return ""


def _chosen(kept: str | int, steps: list[int]) -> set[int]:
    if isinstance(kept, int):
        return set(steps[-kept:])
    return {"all": set(steps), "last": set(steps[-1:]), "best": set()}[kept]


def _step(name: str) -> int | None:
    """The step of a checkpoint that a file belongs to."""
    found = STEP.match(name)
    return int(found[2]) if found else None


def _listed(steps: set[int]) -> str:
    return f"step {', '.join(map(str, sorted(steps)))}" if steps else "none of it"


def _retire(place: Path, files: list[str]) -> None:
    # First, so that a training is found however far the removal came.
    new = place / f"{RETIRED}.partial"
    with writing(place):
        new.write_text(json.dumps(sorted({*retired_files(place), *files})))
        new.replace(place / RETIRED)
    for name in files:
        (place / name).unlink(missing_ok=True)
        with suppress(OSError):
            (place / name).parent.rmdir()


def _heavy(root: Path, store: Store, run: Any) -> list[Path]:
    place = local_artifacts(run)
    if place is None:
        copies = root / "mlruns" / "cache"
        return [copy for name in (run.info.run_id, f"{run.info.run_id}.unfinished") if (copy := copies / name).is_dir()]
    return [path for name in (*sorted(WEIGHTS), SAMPLES) if (path := place / name).exists()]


def _drop_files(store: Store, run: Any, places: list[Path], why: str) -> None:
    if local_artifacts(run) is not None:
        # First, so that nothing points at files that are half gone.
        store.tag(run.info.run_id, {REMOVED: f"{datetime.now(UTC):%Y-%m-%d}: {why}"})
        store.models.delete(run)
    for place in places:
        _drop(place)


def _name(run: Any) -> str:
    tags = run.data.tags
    what = "samples" if tags.get("holdfast.kind") == "data" else "checkpoints"
    if local_artifacts(run) is None:
        what = "local copy"
    study = tags.get("holdfast.study", "")
    return f"{what} of {study} {run.info.run_name} ({run.info.run_id[:8]})"


def _drop(place: Path) -> None:
    with writing(place):
        if place.is_dir():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)
