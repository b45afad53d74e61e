"""A stage as one Ray task: what is sent to a node, and what runs there."""

from __future__ import annotations

import multiprocessing.process
import os
import queue
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from holdfast.config.jobs import AnyJob
from holdfast.errors import UserError
from tasks import slots, worker
from tasks.stage_cache import code_digest, lock_digest

FAREWELL = 10.0
"""Seconds in which a stage that is stopped may end on its node."""


class Room(NamedTuple):
    """A node has room for a stage."""

    node: str
    """Ray's id of it."""


class Order(NamedTuple):
    """What a node is to do."""

    job: AnyJob
    out: Path
    parallel: int | None
    first: bool
    sources: str
    directory: str
    """Where the command was run: modules of the user's own are imported from there."""
    mark: Path
    """A file that is only in the command's own directory."""


def on_node(order: Order) -> Iterator[Any]:
    """In a Ray worker: `Room`, nothing, then lines of the journal, and an error at the end."""
    try:
        _settle(order)
    except UserError as error:
        yield error
        return
    # One task at a time is in a Ray worker, and the next may have other GPUs.
    slots.gpus.cache_clear()
    with worker.children():
        try:
            with slots.slot(order.job, order.parallel, worker.stopping, order.first) as gpu:
                yield Room(_node())
                # Taken with the first lines: until the command asks for these, the stage does not start.
                yield []
                yield from _lines(order, gpu)
        except (UserError, worker.StageFailed, slots.Stopped) as error:
            yield error


def _node() -> str:
    import ray

    return ray.get_runtime_context().get_node_id()


def _settle(order: Order) -> None:
    """Make this process like the one that sent the stage."""
    here = socket.gethostname()
    if sources() != order.sources:
        raise UserError(
            f"compute.runner: the Ray node {here} has other code of holdfast, or another requirements.lock; install "
            "the same version there"
        )
    if not order.mark.is_file() or not Path(order.directory).is_dir():
        raise UserError(
            f"compute.runner: the Ray node {here} does not see {order.out.parent}; mount the repository there "
            "at the same path (docs/team.md)"
        )
    os.chdir(order.directory)
    # Where multiprocessing's children begin, a forkserver's too.
    multiprocessing.process.ORIGINAL_DIR = order.directory  # type: ignore[attr-defined]
    os.environ.update(worker.ENVIRONMENT)


def sources() -> str:
    """What has to be the same on every node."""
    return f"{code_digest()} {lock_digest()}"


def _lines(order: Order, gpu: str) -> Iterator[list[worker.Line]]:
    """Run the process and yield its lines as they come."""
    told: queue.Queue[list[worker.Line] | None] = queue.Queue()
    failed: list[BaseException] = []

    def run() -> None:
        try:
            worker.run(order.job, order.out, told.put, gpu)
        except BaseException as error:
            failed.append(error)
        told.put(None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while (lines := told.get()) is not None:
            if lines:
                yield lines
    finally:
        if thread.is_alive():
            worker.stop_all()
            thread.join(FAREWELL)
    if failed:
        raise failed[0]
