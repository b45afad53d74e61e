"""Data under version control: verified against data.dvc, restored, or made again; every change is a new version.

The only module that imports DVC, and only when there is something to record or restore.
"""

from __future__ import annotations

import fcntl
import json
import logging
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from holdfast.benchmarks.dataset import check, inputs_digest, shard_names
from holdfast.config.jobs import MakeData
from holdfast.config.refs import DataRef, FileRef, content_key, file_digest
from holdfast.config.study import Study
from holdfast.errors import UserError, reason, writing
from tasks import pointer
from tasks.atomic_move import copy, move

Generate = Callable[[MakeData, Path], object]
"""Runs the data stage and leaves its shards in a directory that does not exist yet."""
T = TypeVar("T")

LOCK_LIMIT = 300.0
"""Seconds to wait for DVC's lock when another program holds it."""


def data_job(study: Study) -> MakeData:
    """The job that makes a study's data; refuses images and benchmark files that cannot be used."""
    job = MakeData(seed=study.seed, images=study.images, target=study.target, prior=study.prior)
    check(job)
    return job.model_copy(update={"inputs": inputs_digest(study.images, study.prior, study.target)})


def data_directory(experiment: str, job: MakeData, root: Path) -> Path:
    """Where the data of a job lies; named by its content, not by where the user's files are.

    What is not set is left out, so that a new optional field does not give old data another name.
    """
    content = job.model_dump(mode="json", include={"seed", "target", "inputs"}, exclude_none=True)
    content["images"] = job.images.model_dump(mode="json", exclude={"path"}, exclude_none=True)
    content["target"].pop("path", None)
    content["prior"] = [
        prior.model_dump(mode="json", exclude={"path", "validation_path"}, exclude_none=True) for prior in job.prior
    ]
    return root / "data" / f"{experiment}-{content_key(content)[:8]}"


def prepare_data(study: Study, root: Path, generate: Generate, accept: bool = False) -> DataRef:
    """A study's data, as data.dvc pins it: verified, restored from DVC's cache or remote, or generated.

    Data that differs from data.dvc raises UserError, unless `accept` records it as a new version.
    """
    job = data_job(study)
    place = data_directory(study.experiment, job, root)
    names = shard_names(job)
    if not _intact(place, names, pointer.listing(root)):
        with _alone(root):
            _provide(place, names, lambda into: generate(job, into), accept)
    return DataRef(path=place, digest=_digest(place, names))


def version(root: Path) -> str:
    """md5 in data.dvc; empty before there is data."""
    return pointer.version(root)


def sample_file(data: DataRef, key: str) -> Path:
    """Where the samples of a stage with this key lie."""
    return data.path / f"samples-{key[:8]}.parquet"


def add_samples(data: DataRef, file: Path, key: str) -> FileRef:
    """Put a stage's samples beside the data that they were sampled for: a new version, unless it is in data.dvc."""
    root = data.path.parents[1]
    target = sample_file(data, key)
    md5 = file_digest(file, "md5")
    if not (_same(target, md5) and (pointer.listing(root) or {}).get(_name(target)) == md5):
        with _alone(root):
            _copy(file, target)
            if _pinned(root).get(_name(target)) != md5:
                _record(root, target)
    return FileRef(path=target, digest=file_digest(target))


def _provide(place: Path, names: list[str], generate: Callable[[Path], object], accept: bool) -> None:
    root = place.parents[1]
    pinned = {name: md5 for name in names if (md5 := _pinned(root).get(f"{place.name}/{name}"))}
    if not accept:
        _refuse_different(place, pinned)
    if pinned and not accept and not _complete(place, names):
        _restore(root, {place / name: md5 for name, md5 in pinned.items()})
    if not _complete(place, names):
        _generate(place, names, generate)
        if not accept:
            _refuse_different(place, pinned)
    _record(root, place)


def _intact(place: Path, names: list[str], pinned: pointer.Listing | None) -> bool:
    return pinned is not None and all(_same(place / name, pinned.get(f"{place.name}/{name}")) for name in names)


def _complete(place: Path, names: list[str]) -> bool:
    return all((place / name).is_file() for name in names)


def _same(path: Path, md5: str | None) -> bool:
    return md5 is not None and path.is_file() and file_digest(path, "md5") == md5


def _refuse_different(place: Path, pinned: dict[str, str]) -> None:
    for name, md5 in pinned.items():
        if (place / name).is_file() and not _same(place / name, md5):
            raise UserError(
                f"{place / name}: differs from {pointer.POINTER}; remove it and run again, which restores it or makes "
                f"it again, restore all data with `dvc checkout {pointer.POINTER}`, or record it as a new version "
                f"with `holdfast data FILE --accept`."
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


def _pinned(root: Path) -> pointer.Listing:
    """The listing; taken from DVC's cache where someone, or a run that was killed, left data.dvc with an old one."""
    pinned = pointer.listing(root)
    if pinned is None:
        pinned = _with_dvc(root, lambda repo: _listing_in_cache(repo, root))
        pointer.write_listing(root, pinned)
    return pinned


def _listing_in_cache(repo: Any, root: Path) -> pointer.Listing:
    md5 = pointer.version(root)
    path = Path(repo.cache.local.oid_to_path(md5))
    if not path.is_file() and _has_remote(repo):
        repo.fetch()
    if not path.is_file():
        raise UserError(
            f"{root / pointer.POINTER}: its list of files does not belong to its md5 {md5}, which is not in DVC's "
            f"cache; restore it with `git checkout {pointer.POINTER}`."
        )
    return {entry["relpath"]: entry["md5"] for entry in json.loads(path.read_bytes())}


def _record(root: Path, path: Path) -> None:
    """Add a file or directory below data/ as a new version. The other data need not be here."""
    listing = _pinned(root)

    def add(repo: Any) -> pointer.Listing:
        if listing:
            _know_tree(repo, listing)
        repo.add(str(path if listing else root / "data"), relink=False)
        return _listing_in_cache(repo, root)

    pointer.write_listing(root, _with_dvc(root, add))


def _restore(root: Path, files: dict[Path, str]) -> None:
    """Bring back what DVC's cache or remote has. By copying: `dvc checkout` removes files that its cache lacks."""

    def cached(repo: Any) -> dict[Path, Path]:
        from dvc.exceptions import DvcException

        found = {target: Path(repo.cache.local.oid_to_path(md5)) for target, md5 in files.items()}
        if _has_remote(repo) and not all(path.is_file() for path in found.values()):
            _know_tree(repo, pointer.listing(root) or {})
            try:
                repo.fetch([str(next(iter(files)).parent)])
            except (DvcException, OSError) as error:
                print(f"DVC's remote cannot give the data ({error}); it is made again.", file=sys.stderr)
        return found

    for target, path in _with_dvc(root, cached).items():
        if _same(path, files[target]):
            _copy(path, target)


def _has_remote(repo: Any) -> bool:
    return bool(repo.config["core"].get("remote"))


def _know_tree(repo: Any, listing: pointer.Listing) -> None:
    """Give DVC's cache the directory that data.dvc names; a fresh clone lacks it, and DVC adds nothing to it then."""
    path = Path(repo.cache.local.oid_to_path(pointer.tree_md5(listing)))
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pointer.tree(listing))


@contextmanager
def _alone(root: Path) -> Iterator[None]:
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


def _with_dvc(root: Path, call: Callable[[Any], T]) -> T:
    """Call with the DVC repository, quietly; waits for a while when another program holds its lock."""
    from dvc.exceptions import DvcException
    from dvc.lock import LockError
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.CRITICAL)
    config = {"core": {"no_scm": not (root / ".git").exists()}}
    started = time.monotonic()
    told = False
    while True:
        try:
            with writing(root / ".dvc"), Repo(str(root), config=config) as repo:
                return call(repo)
        except LockError as error:
            if time.monotonic() - started > LOCK_LIMIT:
                raise UserError(
                    f"{root / '.dvc'}: another program has held DVC's lock for {LOCK_LIMIT:.0f} s; "
                    f"let it finish, or end it, and run the same command again."
                ) from error
            if not told:
                print("Waiting for DVC's lock, which another program holds.", file=sys.stderr)
                told = True
        except DvcException as error:
            why = reason(error)
            raise UserError(f"{root / pointer.POINTER}: DVC refuses ({why}); run `dvc doctor` in {root}.") from error
