"""The lines a stage's process leaves while it works; its parent tails them into MLflow and onto the screen."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

METRICS = "metrics.jsonl"
NUMBERS = {"metrics", "shown", "system"}
"""Fields of a line that hold numbers by name."""


class Journal:
    """Appends to OUT/metrics.jsonl: `{"step", "metrics", "time"}` and `{"done", "total", "shown", "time"}` lines.

    The line of an alarm has `alarm`, its name, and `sentence` too. Numbers that are not finite stand there as "NaN",
    "Infinity" and "-Infinity": strict JSON has no others.
    """

    def __init__(self, out: Path) -> None:
        """Begin anew, in a new file: what an interrupted process left may be broken, and is being read."""
        self.path = out / METRICS
        partial = self.path.with_suffix(".partial")
        partial.write_text("")
        partial.replace(self.path)

    def log(self, step: int, metrics: dict[str, float], checkpoint: dict[str, Any] | None = None) -> None:
        """Record metrics at an optimizer step, with the checkpoint they were measured on, if any.

        One that is not finite is recorded as such, or the value before it would pass for it; what has no value by its
        definition is for the caller to leave out.
        """
        line: dict[str, Any] = {"step": step, "metrics": {name: float(value) for name, value in metrics.items()}}
        if checkpoint is not None:
            line["checkpoint"] = checkpoint
        self._write(line)

    def alarm(self, step: int, name: str, sentence: str) -> None:
        """Record that something went wrong, with a metric that marks the step."""
        self._write({"step": step, "metrics": {f"alarm/{name}": 1.0}, "alarm": name, "sentence": sentence})

    def progress(self, done: int, total: int, **shown: float) -> None:
        """Tell how far the stage is, with the few numbers worth showing beside it."""
        self._write({"done": done, "total": total, "shown": shown})

    def save(self, path: Path) -> None:
        """Copy what was recorded so far, without progress, for a process that goes on from here."""
        lines = [line for line in read_lines(self.path) if "done" not in line]
        path.write_text("".join(strict_json(line) + "\n" for line in lines))

    def restore(self, path: Path) -> None:
        """Begin with what was saved."""
        self.path.write_text(path.read_text())

    def _write(self, line: dict[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(strict_json({**line, "time": round(time.time(), 3)}) + "\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All complete lines of a journal; a last line cut off by a kill is left out."""
    lines = []
    for text in path.read_text().splitlines(keepends=True):
        if text.endswith("\n"):
            lines.append(parsed(text))
    return lines


def parsed(text: str | bytes) -> dict[str, Any]:
    """One line of a journal, with its numbers as numbers."""
    line = json.loads(text)
    for name in NUMBERS & line.keys():
        line[name] = {key: float(value) for key, value in line[name].items()}
    return line


def strict_json(content: Any, **how: Any) -> str:
    """JSON that every reader takes: numbers that are not finite become "NaN", "Infinity" or "-Infinity"."""
    return json.dumps(_strict(content), allow_nan=False, **how)


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _strict(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
