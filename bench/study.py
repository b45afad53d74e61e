"""What a study costs: cold, found again, in memory, and in orchestration. `python -m bench.study [FILE]`

Runs the study twice in a fresh clone of the committed code, so nothing of this directory is found again.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mlflow.entities import Run

from tasks.tracking import open_store

HERE = Path(__file__).parents[1]


def main(file: str = "experiments/bundled.yaml") -> None:
    with tempfile.TemporaryDirectory() as place:
        clone = Path(place) / "clone"
        subprocess.run(["git", "clone", "-q", str(HERE), str(clone)], check=True)
        cold, again = timed(clone, file), timed(clone, file)
        runs = open_store(clone).search("tags.`holdfast.stage_key` != ''")
        study = min(open_store(clone).search("tags.`holdfast.kind` = 'study'"), key=lambda run: run.info.start_time)
        inside = covered([interval(run) for run in runs])
        wall = (study.info.end_time - study.info.start_time) / 1000
        print(f"cold: {cold:.0f} s, of which {inside:.0f} s inside stages")
        print(f"orchestration: {100 * (1 - inside / wall):.1f} % of the study's {wall:.0f} s")
        print(f"found again: {again:.1f} s, the Prefect server's start included")
        peak = max(runs, key=lambda run: run.data.metrics.get("peak_memory_mb", 0))
        print(f"peak memory: {peak.data.metrics['peak_memory_mb']:.0f} MB, in {peak.info.run_name}")


def timed(clone: Path, file: str) -> float:
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "flows", "study", file], cwd=clone, check=True)
    return time.monotonic() - started


def interval(run: Run) -> tuple[float, float]:
    """When the stage's process worked, in seconds."""
    start = run.info.start_time / 1000
    return start, start + run.data.metrics.get("seconds", 0.0)


def covered(intervals: list[tuple[float, float]]) -> float:
    """Seconds in which at least one stage worked."""
    total, reached = 0.0, 0.0
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


if __name__ == "__main__":
    main(*sys.argv[1:])
