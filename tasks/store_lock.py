"""Studies hold a store's files together; what removes files holds them alone. The kernel frees what the dead held."""

from __future__ import annotations

import fcntl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from holdfast.errors import writing


@contextmanager
def in_use(root: Path) -> Iterator[None]:
    """Nothing is removed while this block lasts; waits for a removal that is at work."""
    with _file(root).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Waiting for `holdfast gc`, which removes files.", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_SH)
        yield


@contextmanager
def alone(root: Path) -> Iterator[bool]:
    """Whether no study of this clone runs; none begins while this block lasts."""
    with _file(root).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _file(root: Path) -> Path:
    path = root / "mlruns" / "gc.lock"
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return path
