"""summary.json: the numbers of a study with their intervals, which the report draws and the terminal and the model
registry read."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from holdfast.analysis.bootstrap import Interval, interval, ratio, resampled_means
from holdfast.analysis.forgetting import FrontierPoint, at_score, common_score, count_forgotten, matched_scores, pareto
from holdfast.analysis.records import ArmRun, Finished, Graded, Point

PRIOR_MEAN = "prior/mean/accuracy"
REPORTED = ("target/", "prior/", "forgetting/", "retention", "kl/")
ChanceScores = dict[str, float | None]


class Uncertainty:
    """95 % intervals of the final models; column 0 of every table is the base, the arms follow."""

    def __init__(self, finished: Finished, seed: int) -> None:
        self.names = [arm.name for arm in finished.arms]
        self.prior = list(finished.base.prior)
        answers = [finished.base_graded, *(arm.final for arm in finished.arms)]
        target = finished.target
        self.score = f"target/{target}/score"
        values = {
            self.score: _answer_table(answers, ("target", target), "score"),
            f"target/{target}/accuracy": _answer_table(answers, ("target", target), "correct"),
            **{accuracy_metric(name): _answer_table(answers, ("prior", name), "correct") for name in self.prior},
        }
        rng = np.random.default_rng(seed)
        self.means = {name: table.mean(axis=0) for name, table in values.items()}
        self.draws = {name: resampled_means(table, rng) for name, table in values.items()}
        drifts = {arm.name: np.array(list(arm.drift.values()))[:, None] for arm in finished.arms if arm.drift}
        self.drifts = {arm: interval(kl.mean(), resampled_means(kl, rng)[:, 0]) for arm, kl in drifts.items()}
        for tables in (self.means, self.draws):
            tables[PRIOR_MEAN] = np.mean([tables[accuracy_metric(name)] for name in self.prior], axis=0)

    def of_base(self) -> dict[str, Interval]:
        return self._each(0)

    def of_arm(self, arm: str) -> dict[str, Interval]:
        """Of the arm's own metrics; forgetting and retention are paired with the base."""
        column = self.names.index(arm) + 1
        intervals = self._each(column)
        for name in (*self.prior, "mean"):
            intervals[f"forgetting/{name}"] = self._difference(accuracy_metric(name), 0, column)
        draws, means = self.draws[PRIOR_MEAN], self.means[PRIOR_MEAN]
        kept = ratio(draws[:, column], draws[:, 0])
        if kept is not None:
            intervals["retention"] = interval(means[column] / means[0], kept)
        if arm in self.drifts:
            intervals["kl/target"] = self.drifts[arm]
        return intervals

    def arm_differences(self) -> list[dict[str, Any]]:
        """Paired differences, first arm − second."""
        return [
            {"arms": [self.names[i], self.names[j]]}
            | {name: self._difference(name, i + 1, j + 1) for name in (self.score, PRIOR_MEAN)}
            for i, j in combinations(range(len(self.names)), 2)
        ]

    def _each(self, column: int) -> dict[str, Interval]:
        return {name: interval(self.means[name][column], draws[:, column]) for name, draws in self.draws.items()}

    def _difference(self, name: str, first: int, second: int) -> Interval:
        means, draws = self.means[name], self.draws[name]
        return interval(means[first] - means[second], draws[:, first] - draws[:, second])


def accuracy_metric(benchmark: str) -> str:
    return f"prior/{benchmark}/accuracy"


def _answer_table(answers: list[tuple[Graded, ...]], benchmark: tuple[str, str], field: str) -> np.ndarray:
    """(questions, models)"""
    columns = [
        [(row.id, getattr(row, field)) for row in rows if (row.role, row.benchmark) == benchmark] for rows in answers
    ]
    if any([name for name, _ in column] != [name for name, _ in columns[0]] for column in columns):
        raise ValueError(f"{benchmark[1]}: the evaluations asked different questions and cannot be paired")
    return np.array([[value for _, value in column] for column in columns], dtype=np.float64).T


def summarise_study(finished: Finished, chance: ChanceScores, seed: int) -> dict[str, Any]:
    """Everything but texts and pictures. `chance` is what guessing scores: "target", and every prior benchmark."""
    trajectories = {arm.name: trajectory(arm) for arm in finished.arms}
    uncertainty = Uncertainty(finished, seed)
    benchmarks = [name for name in chance if name != "target"]
    guesses = [chance[name] for name in benchmarks]
    known = [guess for guess in guesses if guess is not None]
    content = {
        "target": {
            "benchmark": finished.target,
            "chance": chance["target"],
            "questions": sum(row.role == "target" for row in finished.base_graded),
        },
        "prior": {
            "benchmarks": benchmarks,
            "chance": {name: chance[name] for name in benchmarks},
            "chance_mean": sum(known) / len(known) if len(known) == len(guesses) else None,
            "questions": sum(row.role == "prior" for row in finished.base_graded),
        },
        "base": {
            "metrics": reported(finished.base, finished.base),
            "intervals": uncertainty.of_base(),
            "benchmarks": count_forgotten(finished.base_graded, finished.base_graded),
        },
        "arms": {arm.name: _arm(arm, finished, uncertainty) for arm in finished.arms},
        "matched": _matched(trajectories),
        "frontier": [one._asdict() for one in pareto([p for path in trajectories.values() for p in path])],
        "differences": uncertainty.arm_differences(),
        "aliases": _aliases(finished.arms),
        "alarms": [alarm._asdict() for arm in finished.arms for alarm in arm.alarms],
    }
    return rounded(content)


def retention(point: Point, base: Point) -> float:
    """Prior mean now / base; 0 of nothing is 0."""
    return point.prior_mean / base.prior_mean if base.prior_mean else 0.0


def trajectory(arm: ArmRun) -> list[FrontierPoint]:
    """The arm's evaluations as points on the frontier plot, the base model first."""
    return _frontier_points(arm.name, arm.points)


def _frontier_points(name: str, points: Sequence[Point]) -> list[FrontierPoint]:
    base = points[0]
    return [FrontierPoint(name, p.step, p.score, retention(p, base), base.prior_mean - p.prior_mean) for p in points]


def reported(point: Point, base: Point) -> dict[str, float]:
    """Metrics under their names in MLflow, with what follows from them."""
    metrics = {name: value for name, value in point.metrics.items() if name.startswith(REPORTED)}
    lost = {name: base.prior[name] - value for name, value in point.prior.items()}
    metrics |= {f"forgetting/{name}": value for name, value in lost.items()}
    metrics |= {
        "forgetting/mean": base.prior_mean - point.prior_mean,
        "prior/mean/accuracy": point.prior_mean,
        "retention": retention(point, base),
    }
    return dict(sorted(metrics.items()))


def _arm(arm: ArmRun, finished: Finished, uncertainty: Uncertainty) -> dict[str, Any]:
    return {
        "steps": arm.steps,
        "seconds": arm.seconds,
        "metrics": reported(arm.points[-1], finished.base),
        "intervals": uncertainty.of_arm(arm.name),
        "benchmarks": count_forgotten(finished.base_graded, arm.final),
    }


def _matched(trajectories: dict[str, list[FrontierPoint]]) -> dict[str, Any]:
    scores = matched_scores(list(trajectories.values()))
    reached = {arm: [at_score(path, score) for score in scores] for arm, path in trajectories.items()}
    return {"scores": scores, "all_arms": common_score(list(trajectories.values())), "arms": reached}


def _aliases(arms: tuple[ArmRun, ...]) -> dict[str, Any]:
    """Checkpoints worth a name: the most skilled, and the one with most retention among those at the score all reach.

    Validation questions choose; score and retention are those of the test questions.
    """
    trajectories = [_frontier_points(arm.name, [point.validation for point in arm.points]) for arm in arms]
    both = [(arm, zip(path, arm.points, strict=True)) for arm, path in zip(arms, trajectories, strict=True)]
    trained = [(on_frontier, point, arm) for arm, pairs in both for on_frontier, point in pairs if on_frontier.step > 0]
    floor = common_score(trajectories) or 0.0
    skilled = max(trained, key=lambda entry: (entry[0].score, entry[0].retention))
    keeping = max(
        (entry for entry in trained if entry[0].score >= floor), key=lambda entry: (entry[0].retention, entry[0].score)
    )
    return {
        alias: {
            "arm": arm.name,
            "stage": point.stage,
            "step": point.stage_step,
            "run_id": next(s.record.run_id for s in arm.stages if s.record.stage == point.stage),
            "score": point.score,
            "retention": retention(point, arm.points[0]),
        }
        for alias, (_, point, arm) in {"best-skill": skilled, "best-retention": keeping}.items()
    }


def rounded(value: Any) -> Any:
    """JSON with named fields, floats to six digits."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return rounded(value._asdict())
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value
