"""Stages on the nodes of a Ray cluster: each is one Ray task (`ray_task`), which waits for room on its node and runs
the process.

Everything else stays with the command: MLflow, Prefect, the cache of stages, retries. So a node needs our code, the
models and this repository's directory, at the same paths, and no server of ours.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

from holdfast.config.jobs import AnyJob, Compare, MakeData
from holdfast.config.study import Compute
from holdfast.errors import UserError, reason
from tasks import slots, worker
from tasks.ray_task import FAREWELL, Order, on_node, sources

ADDRESS = "RAY_ADDRESS"
"""Ray's own environment variable: the cluster's HOST:PORT. Without it, the cluster that this machine is a node of."""
HEAD = re.compile(r"[^/\s]+:\d+")
CONNECTING = 10.0
"""Seconds in which the head has to answer."""
POLL = 0.5

_connecting = threading.Lock()


def is_sent(job: AnyJob, compute: Compute) -> bool:
    """Whether a stage runs on a node. Data and reports are made where the command runs: they take no GPU."""
    return compute.runner == "ray" and not isinstance(job, MakeData | Compare)


def require_cluster(compute: Compute) -> None:
    """Connect, and refuse a study whose stages no node has room for.

    Raises:
        UserError: there is no Ray, no cluster, or no node with so many GPUs.
    """
    if compute.runner != "ray":
        return
    connect()
    if compute.device != "cpu":
        _require(compute.gpus, compute.device)


def connect() -> None:
    """Become a driver of the cluster; a second call does nothing. Never starts a cluster.

    Raises:
        UserError: there is no Ray here, or nobody answers.
    """
    if find_spec("ray") is None:
        raise UserError(
            "compute.runner: Ray is not in this environment; `make ray` makes one with it (docs/team.md), or remove "
            "`runner: ray`"
        )
    import ray

    address = os.environ.get(ADDRESS) or "auto"
    if address != "auto" and not HEAD.fullmatch(address):
        raise UserError(
            f"{ADDRESS}: {address} is no HOST:PORT of the cluster's head; run the command on one of its nodes"
        )
    with _connecting, _own_signals():
        if ray.is_initialized():
            return
        try:
            if address != "auto":
                # Ray itself would try for minutes, and hear no signal.
                host, _, port = address.rpartition(":")
                socket.create_connection((host, int(port)), CONNECTING).close()
            ray.init(address=address, log_to_driver=False, logging_level="ERROR", configure_logging=False)
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(
                f"compute.runner: no Ray cluster answers at {address} ({reason(error)}); start one with `ray start "
                f"--head`, or set {ADDRESS} to its HOST:PORT"
            ) from error


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray takes SIGTERM for itself and would leave without an end of what runs."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)


class SentStage:
    """A stage that a node has room for; it starts with `run`."""

    def __init__(self, items: Any) -> None:
        self._items = items
        self.node = ""

    def wait_for_room(self) -> None:
        self.node = self._next().node

    def run(self, on_lines: Callable[[list[worker.Line]], None]) -> None:
        """As `worker.run`; a node that is lost, or a Ray process, is a stage that was killed."""
        while (item := self._next()) is not None:
            on_lines(item)

    def _next(self) -> Any:
        """The next thing that the node tells; None at its end."""
        import ray

        while not worker.stopping.is_set():
            ready, _ = ray.wait([self._items], timeout=POLL)
            if not ready:
                continue
            try:
                item = ray.get(next(self._items))
            except StopIteration:
                return None
            except ray.exceptions.RayTaskError as error:
                raise worker.StageFailed(f"the Ray task of a stage failed: {error}") from error
            except ray.exceptions.RayError as error:
                told = f"{type(error).__name__}: {reason(error)}"
                raise worker.StageKilled(f"Ray lost a stage's node, or ended its process ({told})") from error
            if isinstance(item, BaseException):
                raise item
            return item
        raise slots.Stopped

    def end(self) -> None:
        """Stop it if it still runs, and give its node the time to end the process."""
        import ray

        with suppress(Exception):
            ray.cancel(self._items, force=False)
            ray.wait([self._items.completed()], timeout=FAREWELL)


@contextmanager
def sent(job: AnyJob, out: Path, compute: Compute, first: bool = False) -> Iterator[SentStage]:
    """Have a node make room for a stage. Ray counts its CPUs or GPUs; the node's file locks hold on top of that."""
    connect()
    import ray

    needs = _needs(job)
    # Whoever sees this has this directory, and not one of its own at the same path.
    mark = out.parent / f"{uuid4().hex}.ray"
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()
    order = Order(job, out, compute.parallel, first, sources(), os.getcwd(), mark)
    # The first item is taken before the stage may start: between the two, the command asks whether it still may.
    task = ray.remote(on_node).options(
        **needs,
        num_returns="streaming",
        max_retries=0,
        scheduling_strategy="SPREAD",
        name=job.verb,
        _generator_backpressure_num_objects=1,
    )
    stage = SentStage(task.remote(order))
    try:
        stage.wait_for_room()
        yield stage
    finally:
        stage.end()
        mark.unlink(missing_ok=True)


def _needs(job: AnyJob) -> dict[str, int]:
    """What Ray counts for a stage. UserError where no node has it, for which Ray would wait for ever."""
    if job.device == "cuda" or (job.device == "auto" and _most("GPU")):
        _require(job.ranks, job.device)
        return {"num_gpus": job.ranks, "num_cpus": 0}
    if not _most("CPU"):
        raise UserError(
            "compute.runner: no node of the Ray cluster has a CPU to give; start nodes without `--num-cpus 0`"
        )
    return {"num_gpus": 0, "num_cpus": min(job.ranks * job.threads, _most("CPU"))}


def _most(resource: str) -> int:
    """The most that a living node has of a resource."""
    import ray

    return max((int(node["Resources"].get(resource, 0)) for node in ray.nodes() if node["Alive"]), default=0)


def _require(wanted: int, device: str) -> None:
    there = _most("GPU")
    if wanted > (there if device == "cuda" else max(1, there)):
        raise UserError(
            f"compute.gpus: {wanted}, and no node of the Ray cluster has more than {there}; lower it, start nodes with "
            "`ray start --num-gpus`, or set compute.device to cpu"
        )
