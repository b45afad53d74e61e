"""Where faults happen: repositories with a small study, copied after every stage, and processes to disturb."""

from __future__ import annotations

import functools
import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import yaml
from repositories import new_repository

from faults.draw import SAMPLE, STAGES

SUPPORT = Path(__file__).parents[1]
SIZE = 2**30
"""Bytes of a bed's disk."""
LIMIT = 180.0
"""Seconds after which a study hangs."""
STUDY = """
name: tiny
target: {train: 8, validation: 2, test: 2}
prior: [{benchmark: color, questions: 2, validation: 2}]
arms:
  answers:
    - {method: sft, source: answers, trainer: {max_steps: 6, per_device_train_batch_size: 4}}
  own:
    - method: sft
      source: {kind: rollouts, arm: answers, keep: all, per_prompt: 1, prompts: 2}
      trainer: {max_steps: 1, per_device_train_batch_size: 2}
evaluation: {keep: 2, every: 2, max_new_tokens: 16, drift_prompts: 2}
influence: {every: 6, samples: 2, questions: 2}
"""


class Hangs(Exception):
    """A study that ended too late, or not at all."""


class Running:
    """A study at work: its process, what it prints, and how it ends."""

    def __init__(self, pid: int, log: Path, exit_code: Callable[[], str]) -> None:
        self.pid, self.log, self._exit_code = pid, log, exit_code
        self.began = time.monotonic()
        try:
            self.descriptor: int | None = os.pidfd_open(pid)
        except ProcessLookupError:
            self.descriptor = None

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.is_file() else ""

    def ended(self, seconds: float = 0.0) -> bool:
        """Whether it has ended, after waiting for that long at most."""
        return self.descriptor is None or bool(select.select([self.descriptor], [], [], seconds)[0])

    def until(self, condition: Callable[[], bool], poll: float = 0.004) -> bool:
        """Wait for a condition; false where the study ended without it."""
        while not condition():
            if self.ended(poll):
                return condition()
            if time.monotonic() - self.began > LIMIT:
                self.kill()
                raise Hangs(self.said[-2000:])
        return True

    def wait(self) -> str:
        """Its exit code, or `killed`."""
        self.until(lambda: False, 0.1)
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None
        return self._exit_code()

    def family(self) -> list[psutil.Process]:
        """All processes below it."""
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.pid).children(recursive=True)
        return []

    def kill(self) -> None:
        for process in [*self.family(), psutil.Process(self.pid)]:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)


class Mother:
    """The process that forks studies."""

    def __init__(self, place: Path) -> None:
        place.mkdir(parents=True, exist_ok=True)
        hidden = ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "PREFECT_LOGGING_LEVEL")
        settings = {name: value for name, value in os.environ.items() if name not in hidden}
        path = os.pathsep.join([str(SUPPORT), str(SUPPORT.parents[1])])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "faults.mother"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**settings, "PYTHONPATH": path, "PREFECT_HOME": str(place / "prefect"), "COLUMNS": "160"},
        )
        self.lock = threading.Lock()
        self.ready = False

    def fork(self, order: dict[str, Any]) -> int:
        with self.lock:
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            if not self.ready:
                assert self.process.stdout.readline() == "ready\n"
                self.ready = True
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
            return int(self.process.stdout.readline())

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


class Bed:
    """One repository at a time, always at the same place, since stores remember where their artifacts are."""

    def __init__(self, place: Path, model: Path, mother: Mother, ranks: int = 1) -> None:
        self.place, self.model, self.mother, self.ranks = place, model, mother, ranks
        self.root = place / "repository"
        self.seconds: dict[str, float] = {}
        self.calls: dict[str, int] = {}
        self.numbers = itertools.count()
        # On another disk than the one that will be full.
        self.logs = Path(tempfile.mkdtemp(prefix="faults"))

    def start(self, until: str = STAGES[-1], **more: Any) -> Running:
        """The study, up to a stage."""
        number = next(self.numbers)
        log, code = self.logs / f"{number}.log", self.logs / f"{number}.exit"
        order = {"root": str(self.root), "log": str(log), "exit": str(code), "until": until}
        pid = self.mother.fork({**order, "slots": str(self.place / "slots"), **more})
        return Running(pid, log, lambda: code.read_text() if code.is_file() else "killed")

    def build(self) -> None:
        """Run the study undisturbed and keep a copy after every stage; one of an interrupted training, too."""
        changed = {"model": {"path": str(self.model)}, "compute": {"device": "cpu", "gpus": self.ranks}}
        new_repository(self.root, {**yaml.safe_load(STUDY), **changed})
        self.keep("")
        for stage in STAGES:
            running = self.start(stage)
            running.until(lambda stage=stage, running=running: f"{stage}: started" in running.said)
            began = time.monotonic()
            ended = f"{stage}: {'kept' if stage == SAMPLE else 'done'}"
            running.until(lambda ended=ended, running=running: ended in running.said)
            self.seconds[stage] = time.monotonic() - began
            assert running.wait() == "0", running.said
            self.calls[stage] = int(running.said.rpartition("calls: ")[2])
            self.keep(stage)
        self.restore("evaluate")
        running = self.start("answers")
        marks = self.root / "mlruns" / "work"
        assert running.until(lambda: any(marks.glob("*.partial/trainer/checkpoint-4/complete.json"))), running.said
        os.kill(running.pid, signal.SIGKILL)
        assert running.wait() == "killed"
        self.keep("interrupted")

    def before(self, stage: str) -> str:
        """The name of the copy from which a stage begins."""
        return {"compare": STAGES[-1], "answers influence": "answers"}.get(stage) or ["", *STAGES][STAGES.index(stage)]

    def snapshot(self, name: str) -> Path:
        """Where a copy lies."""
        return self.place / "kept" / (name or "nothing").replace(" ", "-")

    def keep(self, name: str) -> None:
        self._settle()
        shutil.copytree(self.root, self.snapshot(name), symlinks=True)

    def restore(self, name: str) -> None:
        """Go back to how the repository was."""
        self._settle()
        # A name of its own: what still runs below finds nothing any more.
        with suppress(FileNotFoundError):
            self.root.rename(self.place / "old")
        shutil.rmtree(self.place / "old", ignore_errors=True)
        shutil.copytree(self.snapshot(name), self.root, symlinks=True)

    def _settle(self) -> None:
        """Stages of a study that was killed die a moment after it."""
        deadline = time.monotonic() + 10
        while any(self._is_ours(process) for process in psutil.process_iter()) and time.monotonic() < deadline:
            time.sleep(0.01)

    def _is_ours(self, process: psutil.Process) -> bool:
        with suppress(psutil.Error, OSError):
            return process.pid != os.getpid() and Path(os.readlink(f"/proc/{process.pid}/cwd")) == self.root
        return False


@contextmanager
def beds(place: Path, model: Path, count: int = 1, ranks: int = 1) -> Iterator[list[Bed]]:
    """Repositories that are built at the same time, each on a disk of its own, in memory, where that can be.

    So many `ranks` share every stage of their study.
    """
    mother = Mother(place)
    with ExitStack() as stack:
        stack.callback(mother.end)
        places = [stack.enter_context(_disk(place / f"bed-{number}")) for number in range(count)]
        made = [Bed(own, model, mother, ranks) for own in places]
        for bed in made:
            stack.callback(shutil.rmtree, bed.logs)
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(Bed.build, made))
        yield made


@contextmanager
def _disk(place: Path) -> Iterator[Path]:
    place.mkdir(parents=True)
    if not may_mount():
        yield place
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def resize(place: Path, size: int) -> bool:
    """Make a bed's disk smaller or larger; False if it holds more than that."""
    remounted = subprocess.run(["mount", "-o", f"remount,size={size}", place], capture_output=True, check=False)
    return remounted.returncode == 0


def leave(place: Path, free: int) -> None:
    """Make a bed's disk so small that so many bytes are free, while others write to it."""
    for _ in range(20):
        disk = os.statvfs(place)
        if resize(place, (disk.f_blocks - disk.f_bfree) * disk.f_frsize + free):
            return
    raise RuntimeError(f"{place}: cannot be made smaller")


@functools.cache
def may_mount() -> bool:
    """Whether this process may mount file systems, without which a disk is not full and no directory read-only."""
    if os.getuid() != 0:
        return False
    with tempfile.TemporaryDirectory() as place:
        tried = subprocess.run(["mount", "-t", "tmpfs", "none", place], capture_output=True, check=False)
        return not tried.returncode and not subprocess.run(["umount", place], check=False).returncode
