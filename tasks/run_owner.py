"""Which process a run belongs to, so that what a dead one left RUNNING can be told from what still runs.

On one machine a process answers for itself. Everywhere else its runs do: their owner renews a tag, its heartbeat.
"""

from __future__ import annotations

import functools
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

HEARTBEAT_TAG = "holdfast.alive"
"""Tag with the time, in seconds since the epoch, of the owner's last heartbeat."""
HEARTBEAT = 30.0
"""Seconds between two heartbeats."""
HEARTBEAT_TIMEOUT = 300.0
"""Seconds without one after which the owner is dead: clocks may differ by minutes, a server may be away for some."""


OWNER_TAGS = ("holdfast.host", "holdfast.machine", "holdfast.pid", "holdfast.started", HEARTBEAT_TAG)
"""Tags that `owner_tags` gives."""


def owner_tags() -> dict[str, str]:
    """Tags that name this process."""
    me = psutil.Process()
    return {
        "holdfast.host": socket.gethostname(),
        "holdfast.machine": machine(),
        "holdfast.pid": str(me.pid),
        "holdfast.started": _started(me),
        **heartbeat_tag(),
    }


def heartbeat_tag() -> dict[str, str]:
    """The tag that says that this process lives."""
    return {HEARTBEAT_TAG: str(round(time.time()))}


def owner_alive(tags: Mapping[str, str], silence: float = HEARTBEAT_TIMEOUT) -> bool:
    """Whether the owner of a run lives, as far as one can know; who says nothing about itself is left alone.

    One on another machine is dead after `silence` seconds without a heartbeat.
    """
    if owner_here(tags):
        return _runs(int(tags["holdfast.pid"]), tags["holdfast.started"])
    return time.time() - float(tags.get(HEARTBEAT_TAG, "inf")) < silence


def owner_here(tags: Mapping[str, str]) -> bool:
    """Whether the owner of a run is, or was, on this machine, where its process can be looked at."""
    return tags.get("holdfast.machine", tags["holdfast.host"]) in (machine(), socket.gethostname())


@functools.cache
def machine() -> str:
    """Where a process id means one process: a host since it was booted, or a container on it."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _runs(pid: int, started: str) -> bool:
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and _started(process) == started
    except psutil.NoSuchProcess:
        return False


def _started(process: psutil.Process) -> str:
    """What tells a process from a later one with its id: where there is /proc, clock ticks since the machine's boot.

    Seconds since the epoch, as psutil counts them, are others as soon as someone sets the clock.
    """
    try:
        stat = Path(f"/proc/{process.pid}/stat").read_text(errors="replace")
    except OSError:
        return str(round(process.create_time()))
    # The second field is a name in brackets, which may hold anything.
    return stat.rpartition(")")[2].split()[19]


class Heartbeat:
    """Calls `renew` with the ids of this process's open runs every HEARTBEAT seconds, as long as there are any."""

    def __init__(self, renew: Callable[[Sequence[str]], None]) -> None:
        self._renew = renew
        self._open: set[str] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def begin(self, run_id: str) -> None:
        with self._lock:
            self._open.add(run_id)
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, daemon=True)
                self._thread.start()

    def end(self, run_id: str) -> None:
        with self._lock:
            self._open.discard(run_id)

    def is_open(self, run_id: str) -> bool:
        """Whether this process has begun a run and not ended it."""
        with self._lock:
            return run_id in self._open

    def _loop(self) -> None:
        while True:
            time.sleep(HEARTBEAT)
            with self._lock:
                runs = sorted(self._open)
                if not runs:
                    self._thread = None
                    return
            # A server that is away for a while costs heartbeats, not the study.
            with suppress(Exception):
                self._renew(runs)
