"""Bring what a stage leaves behind into the tracking store: each metric and step once, checkpoints, files, tables."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from holdfast.config.refs import DataRef
from holdfast.config.results import Checkpoint, Result
from tasks.completion_tables import completion_tables
from tasks.tracking import Point, Store

CONFIG = "config.json"
STAGE_FILES = (CONFIG, "job.json", "metrics.jsonl", "log.txt", "result.json")
FORBIDDEN_IN_NAMES = re.compile(r"[^\w\-./ :]")
EVERY = 5.0
"""Seconds between two batches of metrics: each costs a server as much as hundreds of points in one."""


class Recorder:
    """Turns journal lines into metrics of one run, sent in batches until its block ends.

    Lines may come again after an interruption.
    """

    def __init__(self, store: Store, run_id: str, data: tuple[str, str] | None, new: bool = False) -> None:
        """A `new` run has no metric yet."""
        self.store, self.run_id, self.data = store, run_id, data
        self.seen = set() if new else store.logged(run_id)
        self.samples = 1 + max((step for name, step in self.seen if name.startswith("system/")), default=-1)
        self.waiting: list[Point] = []
        self.sent = time.monotonic()

    def log_lines(self, lines: list[dict[str, Any]]) -> None:
        """Log the metrics of journal lines that the run does not have yet, soon, and tag it with their alarms."""
        self.waiting += [point for line in lines for point in self._points(line) if self._is_new(point)]
        if time.monotonic() - self.sent > EVERY:
            self._send()
        alarms = [line for line in lines if "alarm" in line]
        if alarms:
            said = {f"holdfast.alarm.{line['alarm']}": f"step {line['step']}: {line['sentence']}" for line in alarms}
            self.store.tag(self.run_id, said)

    def log_totals(self, result: Result) -> None:
        """Log what the whole stage took."""
        metrics = {"seconds": result.seconds, "peak_memory_mb": result.peak_memory_mb}
        self.log_lines([{"step": 0, "metrics": metrics, "time": time.time()}])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._send()

    def _send(self) -> None:
        # A store that refuses them is not asked again at the block's end: the journal has them still.
        points, self.waiting, self.sent = self.waiting, [], time.monotonic()
        if points:
            self.store.log(self.run_id, points, self.data)

    def _points(self, line: dict[str, Any]) -> Iterator[Point]:
        if "system" in line:
            for name, value in line["system"].items():
                yield Point(name, value, self.samples, line["time"])
            self.samples += 1
        if "metrics" in line:
            checkpoint = line.get("checkpoint")
            model = self.store.models.keep(self.run_id, Checkpoint(**checkpoint)) if checkpoint else ""
            for name, value in line["metrics"].items():
                yield Point(name, value, line["step"], line["time"], model)

    def _is_new(self, point: Point) -> bool:
        new = (point.name, point.step) not in self.seen
        self.seen.add((point.name, point.step))
        return new


def upload_artifacts(store: Store, run_id: str, directory: Path, result: Result, data: DataRef | None) -> Path:
    """Make a complete stage's files artifacts of its run, with tables of completions; returns where they lie."""
    names = [*dict.fromkeys([*result.files, *(name for name in STAGE_FILES if (directory / name).is_file())])]
    if data is not None:
        for name, columns in completion_tables(directory, data.path):
            store.artifacts.table(run_id, columns, name)
    return store.artifacts.upload_last(run_id, directory, names)


def flat_params(config: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """A nested config as flat parameters: `evaluation.every` → `0.25`; lists of plain values stay one parameter."""
    flat: dict[str, str] = {}
    for name, value in config.items():
        key = FORBIDDEN_IN_NAMES.sub("_", f"{prefix}{name}")
        if isinstance(value, dict) and value:
            flat.update(flat_params(value, f"{key}."))
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            flat.update(flat_params({str(i): item for i, item in enumerate(value)}, f"{key}."))
        else:
            flat[key] = value if isinstance(value, str) else json.dumps(value)
    return flat
