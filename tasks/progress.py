"""What a person sees while stages run: a table on a terminal or lines, and the flow's log on Prefect's server."""

from __future__ import annotations

import logging
import math
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

EVERY = 10.0
"""Seconds between plain lines of one stage."""
PATIENCE = 30.0
"""Seconds without room for any stage before that is said."""
MATTERING = {
    "prior/mean/accuracy": "prior",
    "retention": "retention",
    "train/reward": "reward",
    "train/loss": "loss",
}

TARGET_SCORE = re.compile(r"target/[^/]+/score")

console = Console(stderr=True, highlight=False, emoji=False)


def short(metric: str) -> str:
    """What a metric that matters is called here; empty for any other."""
    return "score" if TARGET_SCORE.fullmatch(metric) else MATTERING.get(metric, "")


class Row:
    """How far one stage is."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.began = self.told = time.monotonic()
        self.first: tuple[float, int] | None = None
        self.done = self.total = 0
        self.shown: dict[str, float] = {}

    def take(self, lines: list[dict[str, Any]]) -> bool:
        """Take journal lines in; true when they hold an evaluation."""
        for line in lines:
            if "done" in line:
                self.first = self.first or (time.monotonic(), line["done"])
                self.done, self.total = line["done"], line["total"]
                self.shown |= line["shown"]
            metrics = line.get("metrics", {})
            self.shown |= {short(name): value for name, value in metrics.items() if short(name)}
        return any("prior/mean/accuracy" in line.get("metrics", {}) for line in lines)

    def left(self) -> str:
        """Time left at the pace so far."""
        if self.first is None or self.done <= self.first[1]:
            return ""
        pace = (time.monotonic() - self.first[0]) / (self.done - self.first[1])
        return f"{_clock(pace * (self.total - self.done))} left"

    def sentence(self) -> str:
        """All of it in a line."""
        return ": ".join([self.name, "  ".join(cell for cell in self.cells()[1:] if cell)])

    def cells(self) -> tuple[str, str, str, str, str]:
        """Name, steps, time so far, time left, and the numbers that matter."""
        steps = f"{self.done}/{self.total}" if self.total else ""
        told = {name: f"{value:.3g}" if math.isfinite(value) else "not finite" for name, value in self.shown.items()}
        numbers = "  ".join(f"{name} {value}" for name, value in told.items())
        return self.name, steps, _clock(time.monotonic() - self.began), self.left(), numbers


_rows: dict[str, Row] = {}
_lock = threading.Lock()


@contextmanager
def shown() -> Iterator[None]:
    """Show the stages that run inside this block; on a terminal as a table that stays up to date."""
    if not console.is_terminal:
        yield
        return
    with Live(get_renderable=_table, console=console, refresh_per_second=2, transient=True):
        yield


@contextmanager
def running(name: str) -> Iterator[Callable[[list[dict[str, Any]]], None]]:
    """Show a stage while its block runs; the block hands on journal lines."""
    row = Row(name)
    with _lock:
        _rows[name] = row
    if not console.is_terminal:
        _print(f"{name}: started")
    log(f"{name}: started")

    def show(lines: list[dict[str, Any]]) -> None:
        evaluated = row.take(lines)
        for line in lines:
            if "alarm" in line:
                warn(f"{name}: alarm {line['alarm']} at step {line['step']}: {line['sentence']}")
        if evaluated:
            log(row.sentence())
        if not console.is_terminal and (evaluated or (lines and time.monotonic() - row.told > EVERY)):
            row.told = time.monotonic()
            _print(row.sentence())

    try:
        yield show
    finally:
        with _lock:
            _rows.pop(name, None)
        how = "stopped" if sys.exc_info()[0] else "done"
        tell(f"{name}: {how} after {_clock(time.monotonic() - row.began)}")


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
    if not _rows:
        _print(f"{name}: waits for room, other studies are at work on this machine")


def found(name: str) -> None:
    """Say that a stage need not run."""
    tell(f"{name}: found")


def doubts(name: str, sentences: list[str]) -> None:
    """Say what a stage left out or found doubtful."""
    for sentence in sentences:
        warn(f"{name}: {sentence}")


def tell(sentence: str) -> None:
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
        get_run_logger().log(level, sentence)


def _print(sentence: str) -> None:
    console.print(sentence, markup=False, soft_wrap=True)


def _table() -> Table:
    table = Table.grid(padding=(0, 2))
    with _lock:
        for row in _rows.values():
            table.add_row(*map(Text, row.cells()))
    return table


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
