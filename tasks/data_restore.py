"""A past version of a study's data, brought into a directory of its own: the working tree's data stay as they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from holdfast.config.refs import DataRef, content_key, file_digest
from holdfast.errors import UserError, writing
from tasks import data_version
from tasks.atomic_move import copy
from tasks.data import is_sample


def restore_data(recorded: DataRef, files: Mapping[str, str], root: Path, into: Path) -> DataRef:
    """Bring a study's shards below `into`/data and pin them there in a data.dvc; samples are made again by who runs.

    `files` has DVC's md5 by path below data/. They come from the repository at `root`: from DVC's cache, from data/
    where that still has them, or from the remote.

    Raises:
        UserError: none of these has a file, or together they are not what was recorded.
    """
    wanted = {name: md5 for name, md5 in files.items() if not is_sample(name)}
    missing = {name: md5 for name, md5 in wanted.items() if not _same(into / "data" / name, md5)}
    lacking = {name: md5 for name, md5 in missing.items() if _source(root, name, md5) is None}
    if lacking:
        _fetch(root, lacking)
    for name, md5 in missing.items():
        _copy(root, name, md5, into / "data" / name)
    place = into / "data" / recorded.path.name
    shards = sorted(Path(name).name for name in wanted)
    restored = DataRef(path=place, digest=content_key({name: file_digest(place / name) for name in shards}))
    if restored.digest != recorded.digest:
        raise UserError(f"{place}: the restored data are not those that the study read; run `holdfast verify` on it.")
    if not (into / data_version.POINTER).is_file():
        data_version.pin(into, wanted)
    return restored


def _fetch(root: Path, lacking: Mapping[str, str]) -> None:
    reason = f"{root} is no DVC repository"
    if (root / ".dvc").is_dir():
        reason = data_version.fetch_files(root, dict(lacking))
    still = [name for name, md5 in lacking.items() if _source(root, name, md5) is None]
    if still:
        raise UserError(
            f"data/{still[0]}: neither DVC's cache nor a remote has this version ({reason}); "
            f"add the remote that has it, or run the study anew."
        )


def _source(root: Path, name: str, md5: str) -> Path | None:
    """Where a file lies as it was."""
    places = [root / "data" / name]
    if (root / ".dvc").is_dir():
        places.insert(0, data_version.cache_path(root, md5))
    return next((path for path in places if _same(path, md5)), None)


def _copy(root: Path, name: str, md5: str, target: Path) -> None:
    source = _source(root, name, md5)
    if source is None:
        raise UserError(f"data/{name}: changed while it was restored; run the same command again.")
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        copy(source, target)


def _same(path: Path, md5: str) -> bool:
    return path.is_file() and file_digest(path, "md5") == md5
