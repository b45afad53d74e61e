"""What a person sees while stages run: a table on a terminal or lines, and the flow's log on Prefect's server."""

from __future__ import annotations

import logging
import math
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger
from rich.console import Console
from rich.progress import Progress, ProgressColumn, Task
from rich.text import Text

from tasks.redaction import redacted, shown

EVERY = 10.0
"""Seconds between plain lines of one stage."""
PATIENCE = 30.0
"""Seconds without room for any stage before that is said."""
MATTERING = {
    "prior/mean/accuracy": "prior",
    "train/reward": "reward",
    "train/loss": "loss",
}

TARGET_SCORE = re.compile(r"target/[^/]+/score")

console = Console(stderr=True, highlight=False, emoji=False)


def short(metric: str) -> str:
    """What a metric that matters is called here; empty for any other."""
    return "score" if TARGET_SCORE.fullmatch(metric) else MATTERING.get(metric, "")


class _Column(ProgressColumn):
    """One text about each stage, which is not read as markup."""

    def __init__(self, text: Callable[[Task], str]) -> None:
        super().__init__()
        self.text = text

    def render(self, task: Task) -> Text:
        return Text(self.text(task))


def _steps(stage: Task) -> str:
    return f"{stage.completed:.0f}/{stage.total:.0f}" if stage.total else ""


def _elapsed(stage: Task) -> str:
    return _clock(stage.elapsed or 0.0)


def _left(stage: Task) -> str:
    """Time left at the pace so far."""
    return "" if stage.time_remaining is None else f"{_clock(stage.time_remaining)} left"


def _numbers(stage: Task) -> str:
    """The numbers that matter."""
    texts = {name: f"{n:.3g}" if math.isfinite(n) else "not finite" for name, n in stage.fields["shown"].items()}
    return "  ".join(f"{name} {text}" for name, text in texts.items())


TEXTS: tuple[Callable[[Task], str], ...] = (_steps, _elapsed, _left, _numbers)
_stages = Progress(
    *map(_Column, (lambda stage: stage.description, *TEXTS)),
    console=console,
    refresh_per_second=2,
    transient=True,
    speed_estimate_period=math.inf,
)
"""The stages that run now, shown on a terminal inside `display`."""


@contextmanager
def display() -> Iterator[None]:
    """Show the stages that run inside this block; on a terminal as a table that stays up to date."""
    with _stages if console.is_terminal else nullcontext():
        yield


@contextmanager
def running(name: str) -> Iterator[Callable[[list[dict[str, Any]]], None]]:
    """Show a stage while its block runs; the block hands on journal lines."""
    number = _stages.add_task(name, total=None, shown={})
    stage = next(task for task in _stages.tasks if task.id == number)
    printed = time.monotonic()
    if not console.is_terminal:
        _print(f"{name}: started")
    log(f"{name}: started")

    def show(lines: list[dict[str, Any]]) -> None:
        nonlocal printed
        evaluated = _update(stage, lines)
        for line in lines:
            if "alarm" in line:
                warn(f"{name}: alarm {line['alarm']} at step {line['step']}: {line['sentence']}")
        if evaluated:
            log(_sentence(stage))
        if not console.is_terminal and (evaluated or (lines and time.monotonic() - printed > EVERY)):
            printed = time.monotonic()
            _print(_sentence(stage))

    try:
        yield show
    finally:
        _stages.remove_task(number)
        how = "stopped" if sys.exc_info()[0] else "done"
        announce(f"{name}: {how} after {_elapsed(stage)}")


def _update(stage: Task, lines: list[dict[str, Any]]) -> bool:
    """Take journal lines in; true when they hold an evaluation."""
    evaluated = False
    for line in lines:
        if "done" in line:
            _stages.update(stage.id, completed=line["done"], total=line["total"])
            stage.fields["shown"] |= line["shown"]
        metrics = line.get("metrics", {})
        # A training asks validation questions only.
        metrics = {name.removeprefix("validation/"): value for name, value in metrics.items()} | metrics
        stage.fields["shown"] |= {short(name): value for name, value in metrics.items() if short(name)}
        evaluated |= "prior/mean/accuracy" in metrics
    return evaluated


def _sentence(stage: Task) -> str:
    """All about a stage in a line."""
    texts = (text(stage) for text in TEXTS)
    return f"{stage.description}: {'  '.join(text for text in texts if text)}"


@contextmanager
def waiting(name: str) -> Iterator[None]:
    """Say so if a stage waits for long in this block while none of this process runs: then others have the machine."""
    timer = threading.Timer(PATIENCE, _waits, [name])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _waits(name: str) -> None:
    if not _stages.tasks:
        _print(f"{name}: waits for room, other studies are at work on this machine")


def found(name: str) -> None:
    """Say that a stage need not run."""
    announce(f"{name}: found")


def warn_all(name: str, sentences: list[str]) -> None:
    """Say what a stage left out or found doubtful."""
    for sentence in sentences:
        warn(f"{name}: {sentence}")


def announce(sentence: str) -> None:
    """Say it on the terminal and in the flow's log."""
    _print(sentence)
    log(sentence)


def warn(sentence: str) -> None:
    """Say what somebody should look at, on the terminal and in the flow's log."""
    _print(sentence)
    log(sentence, logging.WARNING)


def log(sentence: str, level: int = logging.INFO) -> None:
    """Say it in the flow's log on the Prefect server, if a flow runs."""
    with suppress(MissingContextError):
        get_run_logger().log(level, redacted(sentence))


def _print(sentence: str) -> None:
    console.print(shown(sentence), markup=False, soft_wrap=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
