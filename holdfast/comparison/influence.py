"""Influence runs as typed arrays: what each source's samples do to every benchmark at every checkpoint.

The files and the measures' names are those that `holdfast.influence` leaves; its `measures` has their formulas.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from holdfast.comparison.records import ArmRun, Finished, read_metrics
from holdfast.config import Study
from holdfast.jobs import Result, RunRecord

HALVES = ("a", "b")
KINDS = ("first_order", "trapezoid")
"""Predictions of a change; `path.parquet` has a column for each."""


class Rows(NamedTuple):
    """A source's samples at all checkpoints, one row for each sample and checkpoint, all blocks of layers together.

    With g the gradient of the log-likelihood of a completion (summed over its tokens), w its weight, V a benchmark's
    mean gradient per token.
    """

    benchmarks: tuple[str, ...]
    """The target first."""
    steps: np.ndarray
    """The stage's own steps (rows,)."""
    samples: tuple[str, ...]
    prompts: tuple[str, ...]
    tokens: np.ndarray
    """(rows,)."""
    weights: np.ndarray
    """w: 1 for supervised samples, the advantage for rollouts (rows,)."""
    pulls: np.ndarray
    """w⟨g, V⟩ (rows, benchmarks)."""
    cosines: np.ndarray
    """w⟨g, V⟩ / (|w| ‖g‖ ‖V‖); not a number where w is 0 or ‖V‖ is not known (rows, benchmarks)."""

    def idle(self) -> list[int]:
        """Steps at which no sample has a weight, as where all rollouts of each prompt were rewarded alike."""
        return sorted(set(self.steps.tolist()) - set(self.steps[self.weights != 0].tolist()))

    def where(self, kept: np.ndarray) -> Rows:
        """Some of the rows; `kept` is a mask (rows,)."""
        samples, prompts = (
            tuple(name for name, keep in zip(names, kept, strict=True) if keep)
            for names in (self.samples, self.prompts)
        )
        return Rows(
            self.benchmarks,
            self.steps[kept],
            samples,
            prompts,
            self.tokens[kept],
            self.weights[kept],
            self.pulls[kept],
            self.cosines[kept],
        )


class Travel(NamedTuple):
    """Changes of the questions' log-likelihood per token between two checkpoints, a row for each question and way."""

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
    """What a sample (step, sample) says."""
    travel: Travel
    notes: dict[str, Any]

    @property
    def steps(self) -> list[int]:
        """The checkpoints looked at, from the beginning on."""
        return sorted(set(self.rows.steps.tolist()))

    @property
    def prior(self) -> tuple[str, ...]:
        return self.rows.benchmarks[1:]

    def at(self, step: int, measure: str) -> dict[str, float]:
        """A measure by benchmark; a benchmark for which it was not finite is missing."""
        found = {name: self.measures[step].get(f"{name}/{measure}") for name in self.rows.benchmarks}
        return {name: value for name, value in found.items() if value is not None}


def traces(finished: Finished, study: Study) -> list[Trace]:
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
        rows=read_rows(path / "influence.parquet", measures, study.target.benchmark),
        texts=_texts(path / "sources.parquet"),
        travel=_travel(path / "path.parquet"),
        notes={name: value for name, value in result.notes.items() if name != "source"},
    )


def _measures(path: Path) -> dict[int, dict[str, float]]:
    """By step, without `influence/SOURCE/`."""
    return {
        step: {name.split("/", 2)[2]: value for name, value in found.items() if name.startswith("influence/")}
        for step, found in read_metrics(path).items()
    }


def read_rows(path: Path, measures: Mapping[int, Mapping[str, float]], target: str) -> Rows:
    """Sum the blocks of every sample, in the file's order."""
    table = pq.read_table(path)
    names = [name.removeprefix("dot/") for name in table.column_names if name.startswith("dot/")]
    found = [name.removesuffix("/a") for name in names if name.endswith("/a")]
    benchmarks = tuple(sorted(found, key=lambda name: (name != target, name)))
    halves = [f"dot/{name}/{half}" for name in benchmarks for half in HALVES]
    summed = _over_blocks(table, ["norm2", *halves])
    columns = {name: summed[name].to_numpy() for name in ("step", "tokens", "weight", "norm2_sum")}
    dots = np.stack([summed[f"{name}_sum"].to_numpy() for name in halves], axis=1)
    means = dots.reshape(len(dots), len(benchmarks), len(HALVES)).mean(-1)
    pulls = columns["weight"][:, None] * means
    scale = np.abs(columns["weight"]) * np.sqrt(columns["norm2_sum"])
    along = np.divide(pulls, scale[:, None], out=np.full_like(pulls, np.nan), where=scale[:, None] > 0)
    return Rows(
        benchmarks,
        columns["step"],
        tuple(summed["sample"].to_pylist()),
        tuple(summed["prompt"].to_pylist()),
        columns["tokens"].astype(float),
        columns["weight"],
        pulls,
        _cosines(along, columns["step"], benchmarks, measures),
    )


def _over_blocks(table: pa.Table, summed: Sequence[str]) -> pa.Table:
    keys = ["step", "sample", "prompt", "tokens", "weight"]
    grouped = table.group_by(keys, use_threads=False)
    return grouped.aggregate([(name, "sum") for name in summed])


def _cosines(
    along: np.ndarray, steps: np.ndarray, benchmarks: Sequence[str], measures: Mapping[int, Mapping[str, float]]
) -> np.ndarray:
    """w⟨g, V⟩ / (|w| ‖g‖) over ‖V‖, which is logged by step and benchmark."""
    cosines = np.full_like(along, np.nan)
    for step in np.unique(steps):
        rows, logged = steps == step, measures.get(int(step), {})
        for place, name in enumerate(benchmarks):
            if length := logged.get(f"{name}/benchmark_norm"):
                cosines[rows, place] = along[rows, place] / length
    return cosines


def _texts(path: Path) -> dict[tuple[int, str], str]:
    rows = pq.read_table(path, columns=["step", "sample", "text"]).to_pylist()
    return {(row["step"], row["sample"]): row["text"] for row in rows}


def _travel(path: Path) -> Travel:
    table = pq.read_table(path)
    predicted = {kind: table[kind].to_numpy() for kind in KINDS}
    return Travel(tuple(table["benchmark"].to_pylist()), table["measured"].to_numpy(), predicted)
