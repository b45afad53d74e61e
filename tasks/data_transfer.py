"""Files of a version of the data for an archive, and from one into the data of this repository."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from holdfast.config.refs import file_digest
from holdfast.errors import UserError, writing
from tasks import data_version
from tasks.atomic_move import copy
from tasks.data import data_lock

NAME = re.compile(r"[\w-]+/[\w-][\w.-]*")
"""Of a file below data/."""


def listing_file(root: Path, version: str) -> Path:
    """DVC's object that lists the files of a version of the data. UserError where neither cache nor remote has it."""
    path = data_version.cache_path(root, version)
    if not path.is_file() and data_version.version(root) == version:
        data_version.cache_directory_object(root, data_version.mended_listing(root))
    if not path.is_file():
        raise UserError(
            f"{path}: the list of files of the data version {version} is not in DVC's cache; check out the commit "
            f"whose data.dvc has it and run `dvc fetch`, or run the study again."
        )
    return path


def pinned_files(root: Path, version: str, directories: Collection[str]) -> dict[str, Path]:
    """Where the files of these directories of a version lie, by their names in it.

    Raises:
        UserError: one of them is neither in data/ nor in DVC's cache or remote.
    """
    listed = {entry["relpath"]: entry["md5"] for entry in json.loads(listing_file(root, version).read_bytes())}
    wanted = {name: md5 for name, md5 in listed.items() if Path(name).parent.as_posix() in directories}
    found = {name: _kept(root, name, md5) for name, md5 in wanted.items()}
    for name, path in found.items():
        if file_digest(path, "md5") != wanted[name]:
            raise UserError(f"{path}: is damaged, DVC has another md5 of it; remove it and run the study again.")
    return found


def _kept(root: Path, name: str, md5: str) -> Path:
    here = root / "data" / name
    if here.is_file() and file_digest(here, "md5") == md5:
        return here
    cached = data_version.cached_files(root, {here: md5})[here]
    if not cached.is_file():
        raise UserError(f"{here}: is neither here nor in DVC's cache or remote; `holdfast data FILE` makes it again.")
    return cached


def check_listing(version: str, file: Path) -> None:
    """Refuse a list of files that is not the version's, or that names what lies elsewhere."""
    try:
        entries = json.loads(file.read_bytes())
        whole = all(NAME.fullmatch(entry["relpath"]) and entry.keys() == {"md5", "relpath"} for entry in entries)
    except (ValueError, TypeError, KeyError, AttributeError):
        whole = False
    if not whole or f"{file_digest(file, 'md5')}.dir" != version:
        raise UserError(f"versions/{version}: is not the list of files of this version; nothing was imported.")


def refuse_different(root: Path, files: Mapping[str, Path]) -> None:
    """Refuse files, by their names below data/, where others of these names are. UserError, too, without DVC."""
    with data_lock(root):
        pinned = data_version.mended_listing(root)
    for name, file in files.items():
        md5, here = file_digest(file, "md5"), root / "data" / name
        if pinned.get(name, md5) != md5 or (here.is_file() and file_digest(here, "md5") != md5):
            raise UserError(f"{here}: is there with other contents; nothing was imported.")


def add_files(root: Path, files: Mapping[str, Path], listings: Mapping[str, Path]) -> str:
    """Put files into data/ as a version; `listings` are objects of DVC's that list earlier ones. Returns its md5."""
    with data_lock(root):
        for name, file in files.items():
            target = root / "data" / name
            with writing(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                if not target.is_file():
                    copy(file, target)
        data_version.record(root, data_version.unrecorded(root, [root / "data" / name for name in files]))
        for version, listing in listings.items():
            path = data_version.cache_path(root, version)
            if not path.is_file():
                with writing(path):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    copy(listing, path)
        return data_version.version(root)
