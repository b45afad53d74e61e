"""Run one stage in a child process, or several that share a stage: forked from one preloaded server (or, without
torch, spawned), watched, and dead when we are.

`import trl` takes many seconds, so children are forked from a forkserver that has imported everything and never
touched CUDA. A stage works in NAME.partial/, which is renamed when it is complete and kept when it is not, so that
the same command continues it.
"""

from __future__ import annotations

import fcntl
import gc
import json
import multiprocessing
import os
import pkgutil
import re
import shutil
import signal
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess, SpawnProcess
from multiprocessing.forkserver import ensure_running
from pathlib import Path
from typing import Any, NamedTuple

from holdfast.config.jobs import AnyJob, MakeData
from holdfast.config.ranks import Rank
from holdfast.errors import UserError
from holdfast.journal import METRICS, parsed
from tasks.interrupts import held
from tasks.redaction import redact_file
from tasks.resource_usage import ResourceUsage
from tasks.slots import Stopped

# By name, so that orchestration never imports what a stage imports.
ENTRY = "holdfast.stages.process:run_job"
PRELOAD = [
    "holdfast.models.tiny.build",
    "holdfast.evaluation.stage",
    "holdfast.training.stage",
    "holdfast.influence.trace",
    # For handwritten digits, which the check, the base and the report draw; the library imports it only there.
    "sklearn.datasets",
    "holdfast.stages.preloaded",
]
ENVIRONMENT = {
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # TRL would import MLflow, which takes a second: stages write a journal.
    "DISABLE_MLFLOW_INTEGRATION": "TRUE",
    "VLLM_NO_USAGE_STATS": "1",
}
POLL = 1.0
AFTERMATH = 1.0
"""Seconds in which the death of a rank shows beside the complaints of those who lost it."""
LOG_LINES = 15
KILLED = 255
"""What a forkserver that was killed reports for its children."""
REFUSED = re.compile(r"No space left on device|Disk quota exceeded|Read-only file system|File too large")
"""What a disk says that refuses; libraries hand it on as errors of many kinds."""
LEAST_SPACE = 64 * 1024
"""Bytes; with fewer, a process could not even say so."""

Line = dict[str, Any]
Process = ForkServerProcess | SpawnProcess

stopping = threading.Event()
_forkserver = multiprocessing.get_context("forkserver")
_spawn = multiprocessing.get_context("spawn")
_running: set[Process] = set()
# Starting a process polls all others, and a poll in two threads at once loses the exit code.
_polling = threading.Lock()


class StageFailed(Exception):
    """A stage's process ended with an error; carries the last lines of its log."""


class StageKilled(StageFailed):
    """A stage's process was killed from outside (out of memory, a person): worth another try."""


@contextmanager
def children() -> Iterator[None]:
    """Stages run inside this block; leaving it, by Ctrl-C or any error too, ends those that still do."""
    stopping.clear()
    try:
        yield
    finally:
        stop_all()


def preload() -> None:
    """Start the forkserver and its imports in the background, once it is known that a stage will run."""
    os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})
    with _polling:
        _forkserver.set_forkserver_preload(PRELOAD)
        ensure_running()


def stop_all(grace: float = 5.0) -> None:
    """End every running stage: SIGTERM to its process group, after `grace` seconds SIGKILL. New ones are refused."""
    stopping.set()
    # One that is being started is among them when the lock is free; none starts any more.
    with _polling:
        processes = list(_running)
    for process in processes:
        _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + grace
    for process in processes:
        wait([process.sentinel], max(0.0, deadline - time.monotonic()))
        _signal(process, signal.SIGKILL)


def work_directory(root: Path) -> Path:
    """Where stages work before their results are recorded."""
    return root / "mlruns" / "work"


def run(job: AnyJob, out: Path, on_lines: Callable[[list[Line]], None], gpu: str = "") -> None:
    """Run a job into the directory `out`, handing the lines of its journal and of its resource use to `on_lines`.

    `gpu` is what the job sees as CUDA_VISIBLE_DEVICES. When one of several ranks dies, the others are ended.

    Raises UserError, StageFailed, StageKilled or Stopped, and then keeps `out`.partial for the next attempt.
    """
    partial = out.with_name(f"{out.name}.partial")
    tail = _Tail(out / METRICS)
    if not out.exists():
        tail = _Tail.behind(partial / METRICS)
        partial.mkdir(parents=True, exist_ok=True)
        (partial / "job.json").write_text(job.model_dump_json(indent=1))
        (partial / "error.json").unlink(missing_ok=True)
        ranks = _ranks(job, partial)
        places = [rank.place(partial) for rank in ranks]
        try:
            end = _watch(_start(job, partial, ranks, gpu), tail, on_lines, gpu)
        finally:
            for path in (partial / "error.json", *(place / "log.txt" for place in places)):
                redact_file(path)
        _raise_failure(end, partial, ranks)
        for place in places[1:]:
            shutil.rmtree(place)
        _forget_meetings(partial)
        partial.rename(out)
        tail = tail.moved(out / METRICS)
    on_lines(tail.new_lines())


def _ranks(job: AnyJob, partial: Path) -> list[Rank]:
    """The job's, who are to meet in a file that no earlier attempt has used."""
    _forget_meetings(partial)
    meeting = str(partial / f"meeting-{uuid.uuid4().hex}.partial")
    ranks = [Rank(number, job.ranks, meeting) for number in range(job.ranks)]
    for rank in ranks:
        rank.place(partial).mkdir(exist_ok=True)
    return ranks


def _forget_meetings(partial: Path) -> None:
    for left in partial.glob("meeting-*"):
        left.unlink()


@held
def _start(job: AnyJob, partial: Path, ranks: list[Rank], gpu: str) -> list[Process]:
    preload()
    # Data is made without torch, so it need not wait until the forkserver has imported that.
    context = _spawn if isinstance(job, MakeData) else _forkserver
    processes: list[Process] = []
    with _polling:
        if stopping.is_set():
            raise Stopped
        for rank in ranks:
            process = context.Process(target=_child, args=(ENTRY, str(partial), gpu, rank))
            try:
                process.start()
            except (EOFError, ConnectionError) as error:
                for other in processes:
                    _signal(other, signal.SIGKILL)
                raise StageKilled("the server that starts stages was killed") from error
            processes.append(process)
        _running.update(processes)
    return processes


class _End(NamedTuple):
    """How a stage ended: the exit code of its first rank, or of the one that failed."""

    code: int
    rank: int = 0


def _watch(processes: list[Process], tail: _Tail, on_lines: Callable[[list[Line]], None], gpu: str) -> _End:
    usage = ResourceUsage([process.pid for process in processes], gpu)
    codes: dict[Process, int] = {}
    try:
        while (end := _ended(processes, codes)) is None:
            on_lines(tail.new_lines() + usage.new_lines())
    finally:
        # Also what the stage left behind in its groups, and all of it when on_lines raised.
        for process in processes:
            _signal(process, signal.SIGKILL)
            _running.discard(process)
    on_lines(tail.new_lines())
    return end


def _ended(processes: list[Process], codes: dict[Process, int]) -> _End | None:
    """The end of a stage, or nothing after a while: it ends with its first rank, or with any that fails.

    `codes` are those of processes that have ended, and grow.
    """
    _wait(processes, codes, POLL)
    if any(codes.values()):
        _wait(processes, codes, AFTERMATH)
    failed = [_End(code, rank) for rank, process in enumerate(processes) if (code := codes.get(process, 0))]
    # Whom others lost says more than that they lost it.
    failed.sort(key=lambda end: not _killed(end.code))
    return failed[0] if failed else _End(0) if processes[0] in codes else None


def _wait(processes: list[Process], codes: dict[Process, int], seconds: float) -> None:
    """Wait for another process to end."""
    working = {process.sentinel: process for process in processes if process not in codes}
    ready = wait(list(working), seconds) if working else []
    with _polling:
        for sentinel in ready:
            process = working[sentinel]  # type: ignore[index]
            process.join()
            codes[process] = KILLED if process.exitcode is None else process.exitcode


def _killed(code: int) -> bool:
    return code < 0 or code == KILLED


def _raise_failure(end: _End, partial: Path, ranks: list[Rank]) -> None:
    if end.code == 0 and (partial / "result.json").is_file():
        return
    if stopping.is_set():
        raise Stopped
    if message := _message(partial / "error.json"):
        raise UserError(message)
    written = ranks[end.rank].place(partial) / "log.txt"
    log = written.read_text(errors="replace") if written.is_file() else ""
    last = "\n".join(log.splitlines()[-LOG_LINES:])
    refused = REFUSED.search(last)
    writable = os.access(partial, os.W_OK)
    if refused or not writable or shutil.disk_usage(partial).free < LEAST_SPACE:
        said = refused[0].lower() if refused else "no space left on device" if writable else "read-only file system"
        raise UserError(f"{partial}: cannot be written ({said}); free some space or make it writable.")
    several = f", rank {end.rank} of {len(ranks)}," if len(ranks) > 1 else ""
    if _killed(end.code):
        ended = " and the others were ended" if several else ""
        raise StageKilled(f"the stage's process{several} was killed ({end.code}){ended}; its last lines:\n{last}")
    raise StageFailed(f"the stage's process{several} ended with code {end.code}; its last lines:\n{last}")


def _message(error: Path) -> str:
    """What the stage says of a user's mistake; empty without one, also where the disk was too full to write it down."""
    try:
        return json.loads(error.read_text())["message"]
    except (FileNotFoundError, json.JSONDecodeError):
        return ""


def _signal(process: Process, number: signal.Signals) -> None:
    assert process.pid is not None
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        # It is gone, or so young that it has no group of its own yet.
        if not wait([process.sentinel], 0):
            with suppress(ProcessLookupError):
                os.kill(process.pid, number)


def _child(entry: str, out: str, gpu: str, rank: Rank) -> None:
    """An interrupt that is meant for this process alone counts as one that killed it."""
    try:
        alone = _settle(rank.place(Path(out)), gpu)
    except KeyboardInterrupt:
        os._exit(KILLED)
    except OSError:
        # Who started this sees where nothing can be written.
        os._exit(1)
    try:
        fcntl.flock(alone, fcntl.LOCK_EX)
        several = (rank,) if rank.size > 1 else ()
        pkgutil.resolve_name(entry)(f"{out}/job.json", out, *several)
    except KeyboardInterrupt:
        traceback.print_exc()
        os._exit(KILLED)


def _settle(own: Path, gpu: str) -> int:
    """A group, a log and a GPU of this process's own. The lock that a predecessor, whose parent was killed, holds until
    it has died."""
    os.setsid()
    # What was imported is no garbage; trainers collect, and would look through all of it.
    gc.freeze()
    threading.Thread(target=_die_with_parent, daemon=True).start()
    log = os.open(own / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    return os.open(own / "lock", os.O_WRONLY | os.O_CREAT, 0o644)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.killpg(0, signal.SIGKILL)


class _Tail:
    """The lines that a journal gained since the last look; from its start again when it was replaced."""

    def __init__(self, path: Path, inode: int = 0, offset: int = 0) -> None:
        self.path, self.inode, self.offset = path, inode, offset

    @classmethod
    def behind(cls, path: Path) -> _Tail:
        """Of the journal that will replace what an interrupted process left there, which may be broken."""
        if not path.is_file():
            return cls(path)
        left = path.stat()
        return cls(path, left.st_ino, left.st_size)

    def moved(self, path: Path) -> _Tail:
        return _Tail(path, self.inode, self.offset)

    def new_lines(self) -> list[Line]:
        if not self.path.is_file():
            return []
        with self.path.open("rb") as file:
            inode = os.fstat(file.fileno()).st_ino
            if inode != self.inode or os.fstat(file.fileno()).st_size < self.offset:
                self.inode, self.offset = inode, 0
            file.seek(self.offset)
            data = file.read()
        complete = data[: data.rfind(b"\n") + 1]
        self.offset += len(complete)
        return [parsed(line) for line in complete.splitlines()]
