"""Influence runs as typed arrays: what each source's samples do to every benchmark at every checkpoint.

The files and the measures' names are those that `holdfast.influence` leaves; its `measures` has their formulas.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from holdfast.analysis.influence_rows import Rows, read_rows
from holdfast.analysis.records import ArmRun, Finished, read_metrics
from holdfast.config.jobs import Result, RunRecord
from holdfast.config.study import Study

KINDS = ("first_order", "trapezoid")
"""Predictions of a change; `path.parquet` has a column for each."""


class Trajectory(NamedTuple):
    """Changes of the questions' log-likelihood per token, a row for each question and interval between checkpoints."""

    benchmarks: tuple[str, ...]
    measured: np.ndarray
    predicted: dict[str, np.ndarray]
    """By kind."""


class Trace(NamedTuple):
    """One stage's influence run. `color` is its arm's place in the palette."""

    label: str
    arm: ArmRun
    color: int
    stage: int
    offset: int
    """Steps of the arm before this stage."""
    source: str
    lora: bool
    measures: dict[int, dict[str, float]]
    """By step of the stage: `BENCHMARK/MEASURE`, and measures of the source alone."""
    rows: Rows
    texts: dict[tuple[int, str], str]
    """The completion of a sample (step, sample)."""
    trajectory: Trajectory
    notes: dict[str, Any]

    @property
    def steps(self) -> list[int]:
        """The checkpoints measured, from the beginning on."""
        return sorted(set(self.rows.steps.tolist()))

    @property
    def prior(self) -> tuple[str, ...]:
        return self.rows.benchmarks[1:]

    def at(self, step: int, measure: str) -> dict[str, float]:
        """A measure by benchmark; a benchmark for which it was not finite is missing."""
        found = {name: self.measures[step].get(f"{name}/{measure}") for name in self.rows.benchmarks}
        return {name: value for name, value in found.items() if value is not None}


def read_traces(finished: Finished, study: Study) -> list[Trace]:
    """The influence runs of the arms that a report shows, in its order."""
    runs = [(record, result) for record, result in finished.others if record.kind == "influence"]
    return [
        _trace(arm, color, (record, result), study)
        for color, arm in enumerate(finished.arms)
        for record, result in sorted(runs, key=lambda run: run[0].stage)
        if record.arm == arm.name
    ]


def _trace(arm: ArmRun, color: int, run: tuple[RunRecord, Result], study: Study) -> Trace:
    record, result = run
    path = Path(record.path)
    measures = _measures(path)
    return Trace(
        label=arm.name if len(arm.stages) == 1 else f"{arm.name}, stage {record.stage + 1}",
        arm=arm,
        color=color,
        stage=record.stage,
        offset=sum(stage.steps for stage in arm.stages if stage.record.stage < record.stage),
        source=str(result.notes.get("source", "")),
        lora=study.arms[arm.name][record.stage].lora is not None,
        measures=measures,
        rows=read_rows(path, measures, study.target.benchmark),
        texts=_texts(path / "sources.parquet"),
        trajectory=_read_trajectory(path / "path.parquet"),
        notes={name: value for name, value in result.notes.items() if name != "source"},
    )


def _measures(path: Path) -> dict[int, dict[str, float]]:
    """By step, without `influence/SOURCE/`."""
    return {
        step: {name.split("/", 2)[2]: value for name, value in found.items() if name.startswith("influence/")}
        for step, found in read_metrics(path).items()
    }


def _texts(path: Path) -> dict[tuple[int, str], str]:
    rows = pq.read_table(path, columns=["step", "sample", "text"]).to_pylist()
    return {(row["step"], row["sample"]): row["text"] for row in rows}


def _read_trajectory(path: Path) -> Trajectory:
    table = pq.read_table(path)
    predicted = {kind: table[kind].to_numpy() for kind in KINDS}
    return Trajectory(tuple(table["benchmark"].to_pylist()), table["measured"].to_numpy(), predicted)
