"""What the processes that run a stage together say to each other. With one process, nothing is said."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from holdfast.config.ranks import Rank

PATIENCE = timedelta(hours=12)
"""How long others wait while the first measures and keeps a checkpoint. Who dies is noticed by who started them."""


@contextmanager
def joined(rank: Rank, device: str) -> Iterator[None]:
    """Within, this process is one of its group; on `cuda`, each has a GPU of its own."""
    if rank.size == 1:
        yield
        return
    if device == "cuda":
        torch.cuda.set_device(rank.number)
    dist.init_process_group(
        "cuda:nccl,cpu:gloo" if device == "cuda" else "gloo",
        init_method=f"file://{rank.meeting}",
        rank=rank.number,
        world_size=rank.size,
        timeout=PATIENCE,
    )
    yield
    dist.barrier()
    dist.destroy_process_group()


def size() -> int:
    """Processes of the group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def number() -> int:
    """This process's, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def wait_for_all() -> None:
    """Go on when all have come here."""
    if size() > 1:
        dist.barrier()


def of_the_first(find: Callable[[], Any]) -> Any:
    """What the first process finds; the others do not look."""
    if size() == 1:
        return find()
    told = [find() if number() == 0 else None]
    dist.broadcast_object_list(told, src=0)
    return told[0]


def from_the_first(value: Tensor) -> None:
    """Give every process the first one's values."""
    if size() > 1:
        dist.broadcast(value, src=0)


def of_all(rows: Sequence[Any]) -> list[Any]:
    """The rows of all processes, one process after another."""
    if size() == 1:
        return list(rows)
    told: list[Any] = [None] * size()
    dist.all_gather_object(told, list(rows))
    return [row for part in told for row in part]
