"""Finished runs as typed rows: what was measured at each step of each arm, and every graded answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq

from holdfast.config.jobs import Result, RunRecord
from holdfast.config.refs import content_key
from holdfast.journal import METRICS, read_lines

VALIDATION = "validation/"


class Point(NamedTuple):
    """One evaluation of an arm. `step` counts over all stages of the arm; base is step 0."""

    step: int
    metrics: dict[str, float]
    stage: int = 0
    stage_step: int = 0

    @property
    def score(self) -> float:
        return self.metrics[target_metric(self.metrics, "score")]

    @property
    def validation(self) -> Point:
        """The same evaluation's validation questions, by which checkpoints are chosen."""
        found = {name: value for name, value in self.metrics.items() if name.startswith(VALIDATION)}
        return self._replace(metrics={name.removeprefix(VALIDATION): value for name, value in found.items()})

    @property
    def prior(self) -> dict[str, float]:
        """Accuracy by prior benchmark."""
        return prior_accuracies(self.metrics)

    @property
    def prior_mean(self) -> float:
        return sum(self.prior.values()) / len(self.prior)


class Graded(NamedTuple):
    """One question, as one model answered it."""

    benchmark: str
    role: str
    id: str
    image_id: str
    prompt: str
    completion: str
    parsed: str | None
    answer: str
    correct: bool
    score: float
    tokens: int = 0
    """Length of the completion, its end included."""

    @property
    def key(self) -> tuple[str, str]:
        return self.benchmark, self.id


class StageRun(NamedTuple):
    record: RunRecord
    result: Result
    steps: int


class Alarm(NamedTuple):
    """A sign that a stage of an arm learned something else than the skill, at a step of that stage."""

    arm: str
    stage: int
    step: int
    name: str
    sentence: str


class ArmRun(NamedTuple):
    """A trained arm; its points begin with the base model."""

    name: str
    stages: tuple[StageRun, ...]
    points: tuple[Point, ...]
    final: tuple[Graded, ...]
    drift: dict[str, float] = {}
    """KL(base ‖ now) per token at the end, by target prompt."""

    @property
    def alarms(self) -> list[Alarm]:
        """What went off while its stages trained, in order."""
        journals = [(stage.record.stage, read_lines(Path(stage.record.path) / METRICS)) for stage in self.stages]
        return [
            Alarm(self.name, number, line["step"], line["alarm"], line["sentence"])
            for number, lines in journals
            for line in lines
            if "alarm" in line
        ]

    @property
    def steps(self) -> int:
        return sum(stage.steps for stage in self.stages)

    @property
    def seconds(self) -> float:
        return sum(stage.record.seconds for stage in self.stages)


class Finished(NamedTuple):
    """All that a report is made from."""

    base: Point
    base_graded: tuple[Graded, ...]
    arms: tuple[ArmRun, ...]
    others: tuple[tuple[RunRecord, Result], ...]
    """Runs that train no arm: data, base model, base evaluation."""

    @property
    def target(self) -> str:
        """The target's benchmark."""
        return target_metric(self.base.metrics, "score").split("/")[1]


def target_metric(metrics: Iterable[str], kind: str) -> str:
    """The name of the target's `score`, `accuracy` or `unparsed`, whichever benchmark the target is."""
    return next(name for name in metrics if name.startswith("target/") and name.endswith(f"/{kind}"))


def prior_accuracies(metrics: dict[str, float]) -> dict[str, float]:
    """Accuracy by prior benchmark, without the mean that is logged beside them."""
    named = ((name.split("/"), value) for name, value in metrics.items())
    return {
        parts[1]: value
        for parts, value in named
        if len(parts) == 3 and parts[0] == "prior" and parts[2] == "accuracy" and parts[1] != "mean"
    }


def read_result(record: RunRecord) -> Result:
    return Result.model_validate_json((Path(record.path) / "result.json").read_text())


def read_metrics(directory: Path) -> dict[int, dict[str, float]]:
    """Metrics by step; lines of the same step are merged."""
    steps: dict[int, dict[str, float]] = defaultdict(dict)
    for line in read_lines(directory / METRICS):
        if "metrics" in line:
            steps[line["step"]].update(line["metrics"])
    return dict(sorted(steps.items()))


def read_graded(directory: Path, step: int) -> tuple[Graded, ...]:
    """The graded answers of an evaluation, in order of benchmark and id."""
    path = directory / "evaluations" / f"step-{step:06d}.parquet"
    rows = pq.read_table(path, columns=list(Graded._fields)).to_pylist()
    return tuple(sorted((Graded(**row) for row in rows), key=lambda row: row.key))


def read_drift(directory: Path, step: int) -> dict[str, float]:
    """KL(base ‖ now) per token by target prompt; empty where none was measured."""
    path = directory / "drift" / f"step-{step:06d}.parquet"
    return {row["id"]: row["kl"] for row in pq.read_table(path).to_pylist()} if path.is_file() else {}


def finished_runs(runs: tuple[RunRecord, ...], arms: tuple[str, ...]) -> Finished:
    """Read the base evaluation and the stages of these arms."""
    base_record = next(run for run in runs if run.kind == "evaluate")
    base_path = Path(base_record.path)
    base = Point(0, read_metrics(base_path)[0])
    trained = {name: [run for run in runs if run.kind == "train" and run.arm == name] for name in arms}
    return Finished(
        base=base,
        base_graded=read_graded(base_path, 0),
        arms=tuple(_arm(name, records, base) for name, records in trained.items() if records),
        others=tuple((run, read_result(run)) for run in runs if run.kind != "train"),
    )


def _arm(name: str, records: list[RunRecord], base: Point) -> ArmRun:
    points = [base]
    score = target_metric(base.metrics, "score")
    stages: list[StageRun] = []
    for record in sorted(records, key=lambda record: record.stage):
        offset = sum(stage.steps for stage in stages)
        metrics = read_metrics(Path(record.path))
        evaluated = [step for step, values in metrics.items() if score in values and step > 0]
        points += [Point(offset + step, metrics[step], record.stage, step) for step in evaluated]
        stages.append(StageRun(record, read_result(record), max(metrics)))
    last, step = Path(stages[-1].record.path), points[-1].stage_step
    return ArmRun(name, tuple(stages), tuple(points), read_graded(last, step), read_drift(last, step))


def comparison_digest(runs: tuple[RunRecord, ...]) -> str:
    """One digest over what all runs left behind: equal digests, equal evidence."""
    return content_key(sorted((run.kind, run.arm or "", run.stage, run.digest) for run in runs))
