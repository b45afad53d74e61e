"""One stage that writes metric points on time, tailed into the store of the environment; for `bench.load tail`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from holdfast.config.images import World
from holdfast.config.jobs import MakeData
from holdfast.config.results import Result
from holdfast.config.targets import Jigsaw
from holdfast.journal import Journal
from tasks import worker
from tasks.recording import Recorder
from tasks.tracking import Store

RATE = "HOLDFAST_BENCH_RATE"


def write(_job: str, out: str) -> None:
    """The stage: lines of several metrics each, evenly over every second."""
    seconds, points, lines = map(int, os.environ[RATE].split())
    journal, began = Journal(Path(out)), time.monotonic()
    for line in range(seconds * lines):
        time.sleep(max(0.0, began + line / lines - time.monotonic()))
        journal.log(line, {f"train/metric_{n}": line / (1 + n) for n in range(points // lines)})
    (Path(out) / "result.json").write_text(Result().model_dump_json())


def main(place: str, seconds: int, points: int, lines: int) -> None:
    os.environ[RATE] = f"{seconds} {points} {lines}"
    worker.ENTRY, worker.PRELOAD = "bench.load_tail:write", []
    store = Store(Path(place))
    run_id = store.begin("tail", "tail", {})
    waiting: list[float] = []
    late: list[float] = []

    def sent() -> None:
        if waiting:
            late.append(time.time() - min(waiting))
            waiting.clear()

    # Made without torch, so it starts at once.
    job = MakeData(images=World(), target=Jigsaw(), prior=())
    began = time.monotonic()
    with Recorder(store, run_id, None) as recorder:

        def on_lines(found: list[dict[str, Any]]) -> None:
            recorder.log_lines(found)
            waiting.extend(line["time"] for line in found if "metrics" in line)
            if not recorder.waiting:
                sent()

        worker.run(job, Path(place) / "work", on_lines)
    sent()
    took = time.monotonic() - began
    store.end(run_id, "FINISHED")
    stand = sum(name.startswith("train/") for name, _ in store.logged(run_id))
    print(
        f"{stand:,} of {seconds * points:,} points after {took:.1f} s; a point stands in the store after at most "
        f"{max(late):.1f} s, at the end after {late[-1]:.1f} s"
    )


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
