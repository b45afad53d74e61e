"""Bring files and directories to their place, where they are whole or not there at all, on any file systems."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import nullcontext, suppress
from pathlib import Path


def move(source: Path, target: Path) -> None:
    """Rename, or across file systems put a copy there and remove the source.

    A file replaces a file; a directory moves where nothing is.
    """
    try:
        source.replace(target)
    except OSError as error:
        # Two mounts of one file system, or a layer of a container's, refuse as two file systems do.
        if error.errno != errno.EXDEV:
            raise
        copy(source, target)
        _remove(source)


def copy(source: Path, target: Path) -> None:
    """Copy beside the target, force the copy to the disk, and rename it. The target's parent must exist."""
    partial = target.with_name(f"{target.name}.partial")
    _remove(partial)
    if source.is_dir():
        shutil.copytree(source, partial, copy_function=shutil.copyfile)
    else:
        shutil.copyfile(source, partial)
    for path in [*partial.rglob("*"), partial]:
        _sync(path)
    partial.replace(target)
    _sync(target.parent)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Force a file's bytes, or a directory's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        # Some network file systems know no such thing for directories.
        with suppress(OSError) if path.is_dir() else nullcontext():
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
