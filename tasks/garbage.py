"""What takes room and nobody needs: files of stages that no report is made from, and interrupted work of old keys.

Everything is looked at again right before it is removed, and removing it twice does no harm, so that an interrupted
cleaning is continued by the next one.
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from holdfast.config.jobs import AnyJob
from holdfast.errors import writing
from tasks import worker
from tasks.needed_runs import Needed
from tasks.portable_text import WEIGHTS
from tasks.stage_cache import find_cached, stage_key
from tasks.tracking import Store, local_artifacts

SAMPLES = "samples.parquet"
REMOVED = "holdfast.removed"
"""Tag of a run whose checkpoints or samples were removed: when, and why."""
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
        if place.name == "locks" or not place.is_dir():
            continue
        with _held(work / "locks" / key) as free:
            why = _why_never_continued(place, key, store) if free else ""
        if why:
            yield Garbage(f"interrupted work {key[:12]}", why, size_of(place), lambda p=place, k=key: _drop_work(p, k))


def _why_never_continued(place: Path, key: str, store: Store) -> str:
    try:
        job = JOB.validate_json((place / "job.json").read_text())
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
            yield Garbage(f"{_name(run)}", why, size, lambda r=run, p=places, w=why: _drop_files(store, r, p, w))


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
        store.delete_models(run)
    for place in places:
        _drop(place)


def _name(run: Any) -> str:
    tags = run.data.tags
    what = "samples" if tags.get("holdfast.kind") == "data" else "checkpoints"
    study = tags.get("holdfast.study", "")
    return f"{what} of {study} {run.info.run_name} ({run.info.run_id[:8]})"


def size_of(place: Path) -> int:
    """Bytes of a file, or of all files below a directory."""
    files = place.rglob("*") if place.is_dir() else [place]
    return sum(path.lstat().st_size for path in files if path.is_file() and not path.is_symlink())


def _drop(place: Path) -> None:
    with writing(place):
        if place.is_dir():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)
