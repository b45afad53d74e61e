"""A study's data: verified against data.dvc, restored, or made again; every change is a new version.

DVC is asked only when there is something to record or restore.
"""

from __future__ import annotations

import fcntl
import shutil
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from holdfast.benchmarks.dataset import check, inputs_digest, shard_names
from holdfast.config.jobs import MakeData
from holdfast.config.refs import DataRef, FileRef, content_key, file_digest
from holdfast.config.study import Study
from holdfast.errors import UserError, writing
from tasks import data_version
from tasks.atomic_move import copy, move
from tasks.data_version import POINTER
from tasks.stage_cache import DATA_PATHS

SAMPLES = "samples-"
Read = TypeVar("Read")
Generate = Callable[[MakeData, Path], object]
"""Runs the data stage and leaves its shards in a directory that does not exist yet."""


def data_job(study: Study) -> MakeData:
    """The job that makes a study's data; refuses images and benchmark files that cannot be used."""
    job = MakeData(seed=study.seed, images=study.images, target=study.target, targets=study.targets, prior=study.prior)
    check(job)
    return job.model_copy(update={"inputs": inputs_digest(study.images, study.prior, [*study.all_targets.values()])})


def data_directory(experiment: str, job: MakeData, root: Path) -> Path:
    """Where the data of a job lies; named by its content, not by where the user's files are.

    What is not set is left out, so that a new optional field does not give old data another name.
    """
    content = job.model_dump(mode="json", include={"seed", "target", "inputs"}, exclude_none=True)
    content["images"] = job.images.model_dump(mode="json", exclude={"path"}, exclude_none=True)
    for name in DATA_PATHS:
        content["target"].pop(name, None)
    if job.targets:
        content["target"] = {
            name: target.model_dump(mode="json", exclude=set(DATA_PATHS), exclude_none=True)
            for name, target in job.targets.items()
        }
    content["prior"] = [
        prior.model_dump(mode="json", exclude=set(DATA_PATHS), exclude_none=True) for prior in job.prior
    ]
    return root / "data" / f"{experiment}-{content_key(content)[:8]}"


def prepare_data(
    study: Study, root: Path, generate: Generate, accept: bool = False, first: Callable[[], None] = lambda: None
) -> DataRef:
    """A study's data, as data.dvc pins it: verified, restored from DVC's cache or remote, or generated.

    `first` is called where files are missing, before other studies have to wait for this one's. Data that differs from
    data.dvc raises UserError, unless `accept` records it as a new version.
    """
    job = data_job(study)
    place = data_directory(study.experiment, job, root)
    names = shard_names(job)
    if not _intact(place, names, _whole(root, data_version.listing)):
        if not _complete(place, names):
            first()
        with data_lock(root):
            _provide(place, names, lambda into: generate(job, into), accept)
    data_version.push(root)
    return DataRef(path=place, digest=_digest(place, names))


def version(root: Path) -> str:
    """md5 in data.dvc; empty before there is data."""
    return _whole(root, data_version.version)


def pinned(data: DataRef, keys: Collection[str]) -> dict[str, str]:
    """DVC's md5 of a study's files by path below data/: its shards, and the samples of the stages with these keys."""
    listing = _whole(data.path.parents[1], data_version.listing) or {}
    samples = {_name(sample_file(data, key)) for key in keys}
    own = {name: md5 for name, md5 in listing.items() if name.startswith(f"{data.path.name}/")}
    return {name: md5 for name, md5 in own.items() if not is_sample(name) or name in samples}


def is_sample(name: str) -> bool:
    """Whether a file of the listing holds samples of a stage."""
    return Path(name).name.startswith(SAMPLES)


def sample_file(data: DataRef, key: str) -> Path:
    """Where the samples of a stage with this key lie."""
    return data.path / f"{SAMPLES}{key[:8]}.parquet"


def add_samples(data: DataRef, file: Path, key: str) -> FileRef:
    """Put a stage's samples beside the data that they were sampled for: a new version, unless it is in data.dvc."""
    root = data.path.parents[1]
    target = sample_file(data, key)
    md5 = file_digest(file, "md5")
    if not (_same(target, md5) and (_whole(root, data_version.listing) or {}).get(_name(target)) == md5):
        with data_lock(root):
            _copy(file, target)
            if data_version.mended_listing(root).get(_name(target)) != md5:
                data_version.record(root, [target])
        data_version.push(root)
    return FileRef(path=target, digest=file_digest(target))


def _provide(place: Path, names: list[str], generate: Callable[[Path], object], accept: bool) -> None:
    root = place.parents[1]
    pinned = {name: md5 for name in names if (md5 := data_version.mended_listing(root).get(f"{place.name}/{name}"))}
    if not accept:
        _refuse_different(place, pinned)
    if pinned and not accept and not _complete(place, names):
        _restore(root, {place / name: md5 for name, md5 in pinned.items()})
    if not _complete(place, names):
        _generate(place, names, generate)
        if not accept:
            _refuse_different(place, pinned)
    data_version.record(root, data_version.unrecorded(root, [place / name for name in names]))


def _intact(place: Path, names: list[str], pinned: data_version.Listing | None) -> bool:
    return pinned is not None and all(_same(place / name, pinned.get(f"{place.name}/{name}")) for name in names)


def _complete(place: Path, names: list[str]) -> bool:
    return all((place / name).is_file() for name in names)


def _same(path: Path, md5: str | None) -> bool:
    return md5 is not None and path.is_file() and file_digest(path, "md5") == md5


def _refuse_different(place: Path, pinned: dict[str, str]) -> None:
    for name, md5 in pinned.items():
        if (place / name).is_file() and not _same(place / name, md5):
            raise UserError(
                f"{place / name}: differs from {POINTER}; remove it and run again, which restores it or makes it "
                f"again, restore all data with `dvc checkout {POINTER}`, or record it as a new version with "
                f"`holdfast data FILE --accept`."
            )


def _generate(place: Path, names: list[str], generate: Callable[[Path], object]) -> None:
    """Make the shards beside their place and move them in when all are there; samples that lie there stay."""
    work = place.with_name(f"{place.name}.partial")
    with writing(work):
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
    made = work / "shards"
    try:
        generate(made)
        with writing(place):
            if place.exists():
                for name in names:
                    move(made / name, place / name)
            else:
                for extra in set(made.iterdir()) - {made / name for name in names}:
                    extra.unlink()
                move(made, place)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _copy(source: Path, target: Path) -> None:
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        copy(source, target)


def _digest(place: Path, names: list[str]) -> str:
    return content_key({name: file_digest(place / name) for name in names})


def _name(path: Path) -> str:
    """A file's name in the listing."""
    return f"{path.parent.name}/{path.name}"


def _restore(root: Path, files: dict[Path, str]) -> None:
    """Bring back what DVC's cache or remote has. By copying: `dvc checkout` removes files that its cache lacks."""
    for target, path in data_version.cached_files(root, files).items():
        if _same(path, files[target]):
            _copy(path, target)


def _whole(root: Path, read: Callable[[Path], Read]) -> Read:
    """What stands in data.dvc. DVC empties it before it writes, so what cannot be read is read again in turn."""
    try:
        return read(root)
    except UserError:
        with data_lock(root):
            return read(root)


@contextmanager
def data_lock(root: Path) -> Iterator[None]:
    """One thread of one process at a time changes data/."""
    if not (root / ".dvc").is_dir():
        raise UserError(f"{root / '.dvc'}: is missing, so data cannot be versioned; run `dvc init` in {root}.")
    path = root / ".dvc" / "tmp" / "holdfast.lock"
    with writing(path):
        path.parent.mkdir(exist_ok=True)
        file = path.open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Waiting for another study that prepares its data.", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
