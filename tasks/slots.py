"""How many stages run at a time on this machine, first come, first served.

All of it is kernel file locks, which the kernel frees when their holder dies.
"""

from __future__ import annotations

import fcntl
import functools
import glob
import os
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from holdfast.config.jobs import AnyJob, Compare, MakeData
from holdfast.errors import UserError

LOCKS = Path(tempfile.gettempdir()) / f"holdfast-{os.getuid()}"
POLL = 0.1
DRIVERS = ("/dev/nvidia[0-9]*", "/dev/nvhost-gpu", "/usr/lib/wsl/lib/libcuda.so*")
"""What a machine with a GPU has, whether or not it has nvidia-smi."""


class Stopped(Exception):
    """The study is being stopped; nothing is wrong with the stage."""


@contextmanager
def file_lock(path: Path, stopping: threading.Event) -> Iterator[None]:
    """Hold an exclusive kernel lock on `path`; waits for it, raises Stopped when told to stop."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        while not _locked(file.fileno()):
            if stopping.wait(POLL):
                raise Stopped
        yield


@contextmanager
def slot(job: AnyJob, parallel: int | None, stopping: threading.Event, first: bool = False) -> Iterator[str]:
    """Wait for room for a job; yields the GPU it may use, several with commas between, or an empty string.

    A job on a GPU has that GPU alone, one of several ranks as many. A job on CPUs takes a slot for each of its threads,
    or one of `parallel` for each rank. Those that go `first` have their turn before all others.

    Raises:
        UserError: there are fewer GPUs than ranks.
    """
    if uses_gpu(job):
        require_gpus(job.ranks)
        locks = {f"gpu-{gpu.replace('/', '-')}": gpu for gpu in gpus() or ("",)}
        with _hold(list(locks), job.ranks, stopping, first) as names:
            yield ",".join(locks[name] for name in names)
        return
    names = [f"slot-{n}" for n in range(parallel or cores())]
    wanted = job.ranks if parallel else job.ranks * job.threads
    with _hold(names, min(wanted, len(names)), stopping, first):
        yield ""


def require_gpus(wanted: int) -> None:
    """Refuse a stage on more GPUs than there are.

    Raises:
        UserError: it names both numbers.
    """
    there = len(gpus())
    if wanted > max(1, there):
        raise UserError(
            f"compute.gpus: {wanted}, and this machine has {there}; lower it, or set compute.device to cpu to use as "
            "many processes on its CPUs"
        )


def uses_gpu(job: AnyJob) -> bool:
    """Whether a job runs, or may run, on one of this machine's GPUs."""
    if job.device == "cpu" or isinstance(job, MakeData | Compare):
        return False
    return job.device == "cuda" or bool(gpus())


@functools.cache
def gpus() -> tuple[str, ...]:
    """The GPUs, or instances of them, that this process may use, as CUDA_VISIBLE_DEVICES names them.

    Found without loading CUDA. One without a name, which leaves that variable as it is, is one that drivers show and
    nvidia-smi does not.
    """
    found = _listed()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(_visible(visible, found))
    if found:
        return tuple(name for instances in found for name in instances)
    return ("",) if any(glob.glob(pattern) for pattern in DRIVERS) else ()


def _listed() -> list[tuple[str, ...]]:
    """By GPU the UUIDs of the instances that it is cut into, or its own."""
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False, timeout=30).stdout
    except (OSError, subprocess.TimeoutExpired):
        return []
    found: list[tuple[str, ...]] = []
    for name in re.findall(r"UUID: ((?:GPU|MIG)-[^)\s]+)", listing):
        if name.startswith("GPU-"):
            found.append((name,))
        elif found:
            whole = found[-1][0].startswith("GPU-")
            found[-1] = (name,) if whole else (*found[-1], name)
    return found


def _visible(names: str, found: list[tuple[str, ...]]) -> Iterator[str]:
    """As CUDA reads the variable: up to the first name that is none, and no name twice.

    A number is a GPU's place. UUIDs may be cut short. What nvidia-smi does not list is taken at its word.
    """
    chosen: list[str] = []
    for name in (part.strip() for part in names.split(",")):
        known = [uuid for instances in found for uuid in instances if name and uuid.startswith(name)]
        if name.isdecimal() and (int(name) < len(found) or not found):
            chosen.append(found[int(name)][0] if found else name)
        elif name.startswith("MIG-") or (name.startswith("GPU-") and (known or not found)):
            chosen.append(known[0] if known else name)
        else:
            break
    yield from dict.fromkeys(chosen)


def cores() -> int:
    """CPU cores this process may use, a container's quota included."""
    available = len(os.sched_getaffinity(0))
    quota = Path("/sys/fs/cgroup/cpu.max")
    limit, period = (quota.read_text().split() if quota.is_file() else ("max", "1"))[:2]
    return available if limit == "max" else max(1, min(available, int(limit) // int(period)))


@contextmanager
def _hold(names: Sequence[str], count: int, stopping: threading.Event, first: bool) -> Iterator[list[str]]:
    """Hold `count` of the named locks, all or none: two who see different GPUs would else wait for each other's.

    Of those who begin with the same name, one at a time collects, so none is passed over for ever.
    """
    with ExitStack() as stack:
        with _turn(LOCKS / f"queue-{names[0]}", stopping, first):
            while len(taken := _collected(names, count, stack)) < count:
                if stopping.wait(POLL):
                    raise Stopped
        yield taken


def _collected(names: Sequence[str], count: int, stack: ExitStack) -> list[str]:
    """As many of the locks as are wanted, or none."""
    taken: list[str] = []
    with ExitStack() as held:
        for name in names:
            if len(taken) < count and _took(LOCKS / f"{name}.lock", held):
                taken.append(name)
        if len(taken) < count:
            return []
        stack.push(held.pop_all())
    return taken


@contextmanager
def _turn(queue: Path, stopping: threading.Event, first: bool) -> Iterator[None]:
    """Wait until all who came before have had their turn or are dead.

    A ticket is a file named by when its owner came, by a clock that nobody sets, who keeps it locked; one of those who
    go first stands before all others. At the desk is
    one at a time, so that nobody takes a ticket that is not locked yet for a dead one's.
    """
    queue.mkdir(parents=True, exist_ok=True)
    desk = queue.with_suffix(".lock")
    with ExitStack() as stack:
        with file_lock(desk, stopping):
            place = f"{0 if first else 1}-{time.monotonic_ns():020d}"
            ticket = queue / f"{place}-{os.getpid()}-{threading.get_ident()}"
            _locked(stack.enter_context(ticket.open("a")).fileno())
            stack.callback(ticket.unlink, missing_ok=True)
        while (before := _before(ticket, desk, stopping)) is not None:
            while not _dead(before):
                if stopping.wait(POLL):
                    raise Stopped
        yield


def _before(ticket: Path, desk: Path, stopping: threading.Event) -> Path | None:
    """The ticket of the last one alive who came earlier; those of the dead are thrown away."""
    with file_lock(desk, stopping):
        earlier = sorted(other for other in ticket.parent.iterdir() if other.name < ticket.name)
        for other in reversed(earlier):
            if not _dead(other):
                return other
            other.unlink(missing_ok=True)
    return None


def _dead(ticket: Path) -> bool:
    try:
        with ticket.open() as file:
            return _locked(file.fileno())
    except FileNotFoundError:
        return True


def _took(path: Path, stack: ExitStack) -> bool:
    file = path.open("a")
    if _locked(file.fileno()):
        stack.enter_context(file)
        return True
    file.close()
    return False


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
