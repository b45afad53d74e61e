"""Stages of several processes, as a study runs them, on CPUs."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tasks import worker


def together(job: Any, out: Path, gpus: int = 2, **how: Any) -> Path:
    """Run a job in several processes."""
    try:
        with worker.children():
            worker.run(job.model_copy(update={"gpus": gpus, "device": "cpu", **how}), out, lambda lines: None)
    finally:
        # Its end refuses new stages, and other tests begin some.
        worker.stopping.clear()
    return out


def killed(job: Any, out: Path, rank: int, mark: str) -> None:
    """Run a job in two processes of which one is killed once a file is there; nothing may be left running."""
    partial = out.with_name(f"{out.name}.partial")
    seen: list[Any] = []

    def kill() -> None:
        while not (partial / mark).is_file():
            time.sleep(0.01)
        seen.extend(worker._running)
        log = partial / (f"rank-{rank}" if rank else "") / "log.txt"
        [victim] = [one for one in seen if Path(f"/proc/{one.pid}/fd/1").readlink() == log]
        os.kill(victim.pid, signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    with pytest.raises(worker.StageKilled, match=rf"rank {rank} of 2, was killed \(-9\) and the others were ended"):
        together(job, out)
    assert not [one for one in seen if Path(f"/proc/{one.pid}").exists()]
