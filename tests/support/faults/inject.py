"""How each fault is done to a study whose stages run in forked processes."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

import psutil

from faults.bed import SIZE, Bed, Running, leave, may_mount, resize
from faults.damage import damaged, hot_journal
from faults.draw import RANKS, Fault


class Unable(Exception):
    """This machine, or this process, cannot do that."""


class Struck(NamedTuple):
    """What is left behind."""

    ended: str
    """How the disturbed study ended; empty where it did not run."""
    said: str = ""
    corrupted: bool = False
    """A file that a finished stage made is broken, so that the stage has to run again."""
    hot: bool = False
    """The database is in the middle of a transaction, which who opens it first takes back."""


def strike(bed: Bed, fault: Fault, until: str) -> Struck:
    """Bring the repository to where the fault's stage begins, and let it happen."""
    return STRIKES[fault.kind](bed, fault, until)


def _signal(bed: Bed, fault: Fault, until: str) -> Struck:
    name, _, target = fault.way.partition(" to the ")
    running = _in_stage(bed, fault, until)
    with suppress(ProcessLookupError):
        if target == "flow":
            os.kill(running.pid, signal.Signals[name])
        for child in running.family():
            with suppress(psutil.NoSuchProcess, FileNotFoundError):
                if target == "child" or target == rank_of(child):
                    child.send_signal(signal.Signals[name])
    return Struck(running.wait(), running.said)


def rank_of(process: psutil.Process) -> str:
    """Which of `RANKS` it is, by the log that it writes."""
    return RANKS["rank-1" in os.readlink(f"/proc/{process.pid}/fd/1")]


def _signal_at_call(bed: Bed, fault: Fault, until: str) -> Struck:
    bed.restore(bed.before(fault.stage))
    # Before or after each call.
    call = 1 + int(fault.moment * 2 * bed.calls[fault.stage])
    running = bed.start(until, signal=fault.way, call=call)
    return Struck(running.wait(), running.said)


def _disk_full(bed: Bed, fault: Fault, until: str) -> Struck:
    _needs_mount()
    running = _in_stage(bed, fault, until)
    try:
        leave(bed.place, int(fault.way.split()[0]) * 1024)
        ended = running.wait()
    finally:
        resize(bed.place, SIZE)
    return Struck(ended, running.said)


def _file_size(bed: Bed, fault: Fault, until: str) -> Struck:
    running = _in_stage(bed, fault, until)
    limit = int(fault.way.split()[0]) * 1024
    with suppress(ProcessLookupError):
        for pid in [running.pid, *(child.pid for child in running.family())]:
            hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, hard))
    return Struck(running.wait(), running.said)


def _read_only(bed: Bed, fault: Fault, until: str) -> Struck:
    _needs_mount()
    running = _in_stage(bed, fault, until)
    place = bed.root / fault.way
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "--bind", place, place], check=True)
    try:
        _remount_read_only(place)
        ended = running.wait()
    finally:
        subprocess.run(["umount", "-l", place], check=True)
    return Struck(ended, running.said)


def _remount_read_only(place: Path) -> None:
    """Again where the list of mounts, which `mount` reads, was changing for another bed."""
    for _ in range(20):
        done = subprocess.run(["mount", "-o", "remount,bind,ro", place], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
        time.sleep(0.1)
    raise RuntimeError(f"{place}: cannot be made read-only: {done.stderr}")


def _damage(bed: Bed, fault: Fault, until: str) -> Struck:
    random = fault.random
    if fault.way in ("shard", "DVC's cache"):
        bed.restore("data")
        place = bed.root / ("data" if fault.way == "shard" else ".dvc/cache/files/md5")
        damaged(random.choice(_files(place)), fault.kind, random)
        return Struck("")
    if fault.way.startswith("finished"):
        bed.restore(fault.stage)
        records = fault.way == "finished record"
        damaged(
            random.choice([path for path in _finished(bed, fault.stage) if _is_record(path) == records]),
            fault.kind,
            random,
        )
        return Struck("", corrupted=True)
    bed.restore("interrupted")
    patterns = {"left checkpoint": "*.partial/**/checkpoint*/**/*", "left journal": "*.partial/metrics.jsonl"}
    work = bed.root / "mlruns" / "work"
    left = [
        path
        for path in sorted(work.glob(patterns.get(fault.way, "*.partial/**/*")))
        if path.is_file() and path.stat().st_size
    ]
    damaged(random.choice(left), fault.kind, random)
    return Struck("")


def _sqlite(bed: Bed, fault: Fault, until: str) -> Struck:
    bed.restore(bed.before(fault.stage))
    journal = hot_journal(bed.root / "mlruns" / "mlflow.db")
    if "," in fault.way:
        damaged(journal, fault.way.partition(", ")[2], fault.random)
    return Struck("", hot=True)


def _clock(bed: Bed, fault: Fault, until: str) -> Struck:
    bed.restore(bed.before(fault.stage))
    sign, unit = fault.way.split()
    seconds = int(sign) * {"day": 86400, "min": 60}[unit]
    running = bed.start(until, clock=seconds, after=fault.moment * bed.seconds[fault.stage])
    return Struck(running.wait(), running.said)


def _two(bed: Bed, fault: Fault, until: str) -> Struck:
    bed.restore(bed.before(fault.stage))
    first, second = bed.start(until), bed.start(until)
    started = f"{fault.stage}: started"
    first.until(lambda: started in first.said or started in second.said or second.ended())
    first.ended(fault.moment * bed.seconds[fault.stage])
    if fault.way == "one is killed":
        with suppress(ProcessLookupError):
            os.kill(first.pid, signal.SIGKILL)
    ended, other = first.wait(), second.wait()
    assert other == "0", f"the other study ended with {other}: {second.said[-1500:]}"
    return Struck(ended, first.said)


def _lock(bed: Bed, fault: Fault, until: str) -> Struck:
    bed.restore(bed.before(fault.stage))
    hold = "import sys, zc.lockfile; lock = zc.lockfile.LockFile(sys.argv[1]); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", hold, str(bed.root / ".dvc" / "tmp" / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder, ExitStack() as stack:
        stack.callback(holder.kill)
        assert holder.stdout is not None
        holder.stdout.readline()
        running = bed.start(until)
        running.ended(float(fault.way.split()[0]) + bed.seconds["data"])
    return Struck(running.wait(), running.said)


STRIKES: dict[str, Callable[[Bed, Fault, str], Struck]] = {
    "signal": _signal,
    "signal at a call of MLflow's": _signal_at_call,
    "disk full": _disk_full,
    "file size limit": _file_size,
    "read-only directory": _read_only,
    "truncated": _damage,
    "bit flipped": _damage,
    "SQLite journal": _sqlite,
    "clock jump": _clock,
    "two at once": _two,
    "DVC lock held": _lock,
}


def _in_stage(bed: Bed, fault: Fault, until: str) -> Running:
    """A study at the fault's moment."""
    bed.restore(bed.before(fault.stage))
    running = bed.start(until)
    running.until(lambda: f"{fault.stage}: started" in running.said)
    running.ended(fault.moment * bed.seconds[fault.stage])
    return running


def _finished(bed: Bed, stage: str) -> list[Path]:
    """The artifacts that a stage's run has and nothing before it."""
    earlier = bed.snapshot(bed.before(stage)) / "mlruns" / "artifacts"
    place = bed.root / "mlruns" / "artifacts"
    return [path for path in _files(place) if not (earlier / path.relative_to(place)).exists()]


def _is_record(path: Path) -> bool:
    return path.name in ("result.json", "metrics.jsonl", "job.json")


def _files(place: Path) -> list[Path]:
    """In a fixed order, without those that decide nothing."""
    unread = ("log.txt", "config.json")
    found = (path for path in place.rglob("*") if path.is_file() and path.stat().st_size)
    return sorted(path for path in found if path.name not in unread or "checkpoints" in path.parts)


def _needs_mount() -> None:
    if not may_mount():
        raise Unable("needs root, to mount")
