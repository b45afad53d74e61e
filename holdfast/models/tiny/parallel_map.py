"""`map` in several processes."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

Item = TypeVar("Item")
Found = TypeVar("Found")


def parallel_map(work: Callable[[Item], Found], items: Sequence[Item], processes: int) -> Iterator[Found]:
    """`map`, in forked processes, which have models and images already; threads would wait for each other's Python.

    What is found should be arrays: a tensor would cross the border as an open file, of which there are too few.
    """
    if processes == 1 or sys.platform != "linux":
        yield from map(work, items)
        return
    with multiprocessing.get_context("fork").Pool(processes, _inherit, (work,)) as pool:
        yield from pool.imap(_call, items, chunksize=1)


_work: Callable[[Any], Any]


def _inherit(work: Callable[[Any], Any]) -> None:
    """In a forked process, whose arguments need no pickling."""
    global _work
    _work = work


def _call(item: Any) -> Any:
    return _work(item)
