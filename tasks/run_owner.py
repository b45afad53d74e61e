"""Which process a run belongs to, so that what a dead one left RUNNING is told from what still runs.

On one machine a process answers for itself. Everywhere else its runs do: their owner renews a tag while it lives.
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

ALIVE = "holdfast.alive"
"""Tag with the time, in seconds since the epoch, at which the owner last said that it lives."""
BEAT = 30.0
"""Seconds between two such times."""
SILENCE = 300.0
"""Seconds after which the owner is dead, so that clocks may differ by minutes and a server may be away for some."""


def owner() -> dict[str, str]:
    """Tags that name this process."""
    me = psutil.Process()
    return {
        "holdfast.host": socket.gethostname(),
        "holdfast.machine": machine(),
        "holdfast.pid": str(me.pid),
        "holdfast.started": str(round(me.create_time())),
        **beat(),
    }


def beat() -> dict[str, str]:
    """The tag that says that this process lives."""
    return {ALIVE: str(round(time.time()))}


def lives(tags: Mapping[str, str]) -> bool:
    """Whether the owner of a run lives, as far as one can know; who says nothing about itself is left alone."""
    if tags.get("holdfast.machine", tags["holdfast.host"]) in (machine(), socket.gethostname()):
        return _runs(int(tags["holdfast.pid"]), int(tags["holdfast.started"]))
    return time.time() - float(tags.get(ALIVE, "inf")) < SILENCE


@functools.cache
def machine() -> str:
    """Where a process id means one process: a host since it was booted, or a container on it."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _runs(pid: int, started: int) -> bool:
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - started) <= 1
    except psutil.NoSuchProcess:
        return False


class Pulse:
    """Calls `beat` with the ids of this process's open runs again and again, as long as there are any."""

    def __init__(self, beat: Callable[[Sequence[str]], None]) -> None:
        self._beat = beat
        self._open: set[str] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def begin(self, run_id: str) -> None:
        with self._lock:
            self._open.add(run_id)
            if self._thread is None:
                self._thread = threading.Thread(target=self._go_on, daemon=True)
                self._thread.start()

    def end(self, run_id: str) -> None:
        with self._lock:
            self._open.discard(run_id)

    def _go_on(self) -> None:
        while True:
            time.sleep(BEAT)
            with self._lock:
                runs = sorted(self._open)
                if not runs:
                    self._thread = None
                    return
            # A server that is away for a while costs beats, not the study.
            with suppress(Exception):
                self._beat(runs)
