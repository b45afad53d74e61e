"""Local copies of the artifacts of runs whose store keeps them on a server."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from holdfast.errors import UserError, brief


class ArtifactCache:
    """One directory a run. `client` lists and downloads, as MLflow's does."""

    def __init__(self, directory: Path, client: Any) -> None:
        self.directory, self.client = directory, client

    def get(self, run_id: str, finished: bool, again: bool = False) -> Path:
        """A run's copy. A finished run is fetched once, and `again` where its copy is broken; others every time."""
        copy = self.directory / (run_id if finished else f"{run_id}.unfinished")
        return self._filled(copy, lambda partial: self._fetch(run_id, partial), again or not finished)

    def add_local(self, run_id: str, directory: Path, names: Sequence[str]) -> Path:
        """Make these files, which lie below `directory` still, the copy of their run; `completed` fetches the others.

        The rest of a run are MLflow's tables, and hundreds of their pictures, which no program reads.
        """
        copy = self.directory / run_id
        _incomplete(copy).parent.mkdir(parents=True, exist_ok=True)
        _incomplete(copy).touch()
        return self._filled(copy, lambda partial: _linked(directory, names, partial), again=True)

    def completed(self, run_id: str, copy: Path) -> Path:
        """A run's copy with all that the server has of it."""

        with _locked(copy):
            if _incomplete(copy).exists():
                # Beside what is there, which others may be reading.
                partial = copy.with_name(f"{copy.name}.partial")
                shutil.rmtree(partial, ignore_errors=True)
                _linked(copy, _files(copy), partial)
                self._fetch(run_id, partial)
                _linked(partial, sorted(set(_files(partial)) - set(_files(copy))), copy)
                shutil.rmtree(partial)
                _incomplete(copy).unlink()
        return copy

    def _filled(self, copy: Path, fill: Callable[[Path], None], again: bool) -> Path:
        """Fill a directory beside its place and rename it, so that half a copy is never taken for one."""
        partial = copy.with_name(f"{copy.name}.partial")
        with _locked(copy):
            if again or not copy.is_dir():
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
                fill(partial)
                shutil.rmtree(copy, ignore_errors=True)
                partial.rename(copy)
        return copy

    def _fetch(self, run_id: str, into: Path) -> None:
        """Download what is not there yet."""
        folders: list[str | None] = [None]
        while folders:
            for artifact in self.client.list_artifacts(run_id, folders.pop()):
                _require_inside(artifact.path)
                if artifact.is_dir:
                    folders.append(artifact.path)
                elif not (target := into / artifact.path).is_file():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    self.client.download_artifacts(run_id, artifact.path, str(target.parent))


def _incomplete(copy: Path) -> Path:
    """A file that is there while a copy lacks what its server has."""
    return copy.with_name(f"{copy.name}.incomplete")


def _files(directory: Path) -> list[str]:
    return [path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()]


def _linked(source: Path, names: Sequence[str], target: Path) -> None:
    for name in names:
        link(source / name, target / name)


def inside(name: str) -> bool:
    """Whether a name that a store hands out stays below the directory that it is meant for."""
    return not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts


def _require_inside(name: str) -> None:
    """Whoever keeps the artifacts names them, and may not choose where they are written. UserError."""
    if not inside(name):
        raise UserError(f"{brief(name)}: leads out of its run's artifacts, so nothing of it is fetched; delete it.")


@contextmanager
def _locked(copy: Path) -> Iterator[None]:
    """One thread of one process at a time fills a copy."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    with copy.with_name(f"{copy.name}.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def link(source: Path, target: Path) -> None:
    """A file under another name, or a copy of it where there can be no second name; replaces what is there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        os.link(source, partial)
    except OSError:
        shutil.copy2(source, partial)
    partial.replace(target)
    # Renaming one name of a file over another of the same file leaves both.
    partial.unlink(missing_ok=True)
