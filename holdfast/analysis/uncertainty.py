"""Intervals of every reported number, from one resampling of the questions that all models share."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np

from holdfast.analysis.records import Finished, Graded
from holdfast.analysis.statistics import Interval, interval, ratio, resampled_means

PRIOR_MEAN = "prior/mean/accuracy"


class Uncertainty:
    """95 % intervals of the final models; column 0 of every table is the base, the arms follow."""

    def __init__(self, finished: Finished, seed: int) -> None:
        self.names = [arm.name for arm in finished.arms]
        self.prior = list(finished.base.prior)
        answers = [finished.base_graded, *(arm.final for arm in finished.arms)]
        target = finished.target
        self.score = f"target/{target}/score"
        values = {
            self.score: _matrix(answers, ("target", target), "score"),
            f"target/{target}/accuracy": _matrix(answers, ("target", target), "correct"),
            **{accuracy(name): _matrix(answers, ("prior", name), "correct") for name in self.prior},
        }
        rng = np.random.default_rng(seed)
        self.means = {name: table.mean(axis=0) for name, table in values.items()}
        self.draws = {name: resampled_means(table, rng) for name, table in values.items()}
        drifts = {arm.name: np.array(list(arm.drift.values()))[:, None] for arm in finished.arms if arm.drift}
        self.drifts = {arm: interval(kl.mean(), resampled_means(kl, rng)[:, 0]) for arm, kl in drifts.items()}
        for tables in (self.means, self.draws):
            tables[PRIOR_MEAN] = np.mean([tables[accuracy(name)] for name in self.prior], axis=0)

    def of_base(self) -> dict[str, Interval]:
        return self._each(0)

    def of_arm(self, arm: str) -> dict[str, Interval]:
        """Of the arm's own metrics; forgetting and retention are paired with the base."""
        column = self.names.index(arm) + 1
        intervals = self._each(column)
        for name in (*self.prior, "mean"):
            intervals[f"forgetting/{name}"] = self._difference(accuracy(name), 0, column)
        draws, means = self.draws[PRIOR_MEAN], self.means[PRIOR_MEAN]
        kept = ratio(draws[:, column], draws[:, 0])
        if kept is not None:
            intervals["retention"] = interval(means[column] / means[0], kept)
        if arm in self.drifts:
            intervals["kl/target"] = self.drifts[arm]
        return intervals

    def differences(self) -> list[dict[str, Any]]:
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


def accuracy(benchmark: str) -> str:
    return f"prior/{benchmark}/accuracy"


def _matrix(answers: list[tuple[Graded, ...]], benchmark: tuple[str, str], field: str) -> np.ndarray:
    """(questions, models)"""
    columns = [
        [(row.id, getattr(row, field)) for row in rows if (row.role, row.benchmark) == benchmark] for rows in answers
    ]
    if any([name for name, _ in column] != [name for name, _ in columns[0]] for column in columns):
        raise ValueError(f"{benchmark[1]}: the evaluations asked different questions and cannot be paired")
    return np.array([[value for _, value in column] for column in columns], dtype=np.float64).T
