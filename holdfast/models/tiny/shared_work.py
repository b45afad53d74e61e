"""Work on items that processes share out among them."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

Item = TypeVar("Item")
Found = TypeVar("Found")


def shared_out(work: Callable[[Item], Found], items: Sequence[Item], processes: int) -> Iterator[Found]:
    """`map`, in forked processes, which have models and images already; threads would wait for each other's Python.

    What is found should be arrays: a tensor would cross the border as an open file, of which there are too few.
    """
    if processes == 1 or sys.platform != "linux":
        yield from map(work, items)
        return
    with multiprocessing.get_context("fork").Pool(processes, _remember, (work,)) as pool:
        yield from pool.imap(_do, items, chunksize=1)


_work: Callable[[Any], Any]


def _remember(work: Callable[[Any], Any]) -> None:
    """In a forked process, whose arguments need no pickling."""
    global _work
    _work = work


def _do(item: Any) -> Any:
    return _work(item)
