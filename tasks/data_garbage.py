"""Objects in DVC's cache that no version of the data needs that anybody may still ask for.

`dvc gc` decides and removes, under DVC's own lock. It knows what the working tree, branches and tags use; what runs and
other clones use is told to it as a project of its own. Remotes are never touched: others share them.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from holdfast.errors import UserError
from tasks import data_version
from tasks.data import data_lock
from tasks.data_version import POINTER
from tasks.garbage import Garbage

REMOVING = re.compile(r"^Removing (/.+)$", re.MULTILINE)


def shared_cache(root: Path) -> bool:
    """Whether DVC's cache lies outside the repository, where other repositories may use it, too."""
    return not data_version.cache_root(root).resolve().is_relative_to(root.resolve())


def old_objects(root: Path, versions: Iterable[str], clones: Sequence[Path]) -> Iterator[Garbage]:
    """What `dvc gc` would remove, if these versions and those of `clones` are kept."""
    versions = sorted(set(filter(None, versions)))

    def collect(*options: str) -> str:
        with data_lock(root), _kept(root, versions, clones) as projects:
            return data_version.collect_garbage(root, *_scope(root), *projects, *options)

    def remove() -> None:
        collect()

    paths = [Path(path) for path in REMOVING.findall(collect("--dry"))]
    if paths:
        size = sum(path.stat().st_size for path in paths if path.is_file())
        why = "no branch, tag, run or named clone has a version of the data with them"
        yield Garbage(f"{len(paths)} objects of DVC's cache", why, size, remove)


def _scope(root: Path) -> list[str]:
    return ["--workspace", "--all-branches", "--all-tags"] if (root / ".git").exists() else ["--workspace"]


@contextmanager
def _kept(root: Path, versions: Sequence[str], clones: Sequence[Path]) -> Iterator[list[str]]:
    """Options that name a project, for as long as the block lasts, which uses all that is kept."""
    with TemporaryDirectory(prefix="holdfast-") as place:
        project = Path(place)
        (project / ".dvc").mkdir()
        if (root / ".git").exists():
            subprocess.run(["git", "init", "-q", place], check=True, capture_output=True)
        no_scm = "" if (root / ".git").exists() else "[core]\n    no_scm = true\n"
        cache = data_version.cache_root(root).resolve()
        (project / ".dvc" / "config").write_text(f"{no_scm}[cache]\n    dir = {cache}\n")
        pointers = [root / POINTER, *(clone / POINTER for clone in clones)]
        used = {*versions, *_of_versions(root, versions), *(md5 for file in pointers for md5 in _of_pointer(file))}
        outs = [{"md5": md5, "hash": "md5", "path": f"kept-{n}"} for n, md5 in enumerate(sorted(used))]
        (project / "kept.dvc").write_text(yaml.safe_dump({"outs": outs}))
        yield ["--projects", place, *map(os.fspath, clones)]


def _of_versions(root: Path, versions: Sequence[str]) -> Iterator[str]:
    """The files of versions whose lists the cache has."""
    for version in versions:
        path = data_version.cache_path(root, version)
        if path.is_file():
            yield from (entry["md5"] for entry in json.loads(path.read_bytes()))


def _of_pointer(file: Path) -> Iterator[str]:
    """What a data.dvc pins, by its own list: a fresh clone's cache has none."""
    if file.is_file():
        yield data_version.version(file.parent)
        yield from (data_version.listing(file.parent) or {}).values()


def checked_clones(clones: Iterable[Path]) -> list[Path]:
    """Other clones' directories. UserError for one that is none."""
    found = [clone.resolve() for clone in clones]
    for clone in found:
        if not (clone / ".dvc").is_dir():
            raise UserError(f"{clone}: is no clone with a .dvc directory; name the directory of one.")
    return found
