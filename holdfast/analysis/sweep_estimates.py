"""Accuracies of all models of a sweep under one bootstrap over questions.

Models that answered the same questions are resampled together, whichever setting they belong to, so every difference
between them is paired. Other questions (of another target, or drawn by another seed) are resampled on their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np

from holdfast.analysis.bootstrap import Interval, interval, ratio, resampled_means
from holdfast.analysis.records import Graded
from holdfast.analysis.sweep_runs import BASE, Model, Setting

QuestionSet = tuple[str, str, tuple[tuple[str, str, str], ...]]
"""Role and benchmark, and id, image and right answer of each question: equal for the same questions."""


class Estimate(NamedTuple):
    """A number and its bootstrap draws."""

    value: float
    draws: np.ndarray

    def minus(self, other: Self) -> Estimate:
        return Estimate(self.value - other.value, self.draws - other.draws)

    @property
    def interval(self) -> Interval:
        return interval(self.value, self.draws)


class Measured(NamedTuple):
    """What a model was measured to do at the end."""

    accuracy: Estimate
    score: Estimate
    prior: Estimate
    """Mean over the prior benchmarks."""
    retention: Estimate | None
    """None where the base knows too little to divide by."""


def mean_estimate(estimates: Sequence[Estimate]) -> Estimate:
    """Of several models."""
    return Estimate(
        float(np.mean([estimate.value for estimate in estimates])),
        np.mean([estimate.draws for estimate in estimates], axis=0),
    )


def question_set(rows: Sequence[Graded]) -> QuestionSet:
    """The identity of a benchmark's questions. Ids alone would not do: another seed draws others under the same ids."""
    return rows[0].role, rows[0].benchmark, tuple((row.id, row.image_id, row.answer) for row in rows)


def measure_models(settings: Sequence[Setting], seed: int) -> dict[Model, Measured]:
    """Every base and every trained model."""
    columns = _by_questions(settings)
    target: dict[Model, tuple[Estimate, Estimate]] = {}
    prior: dict[Model, list[Estimate]] = {}
    for number, ((role, _, _), answers) in enumerate(columns.items()):
        rng = np.random.default_rng([seed, number])
        table = np.array([_values(rows) for rows in answers.values()], dtype=np.float64)
        values = np.concatenate([table[:, 0], table[:, 1]]).T
        draws, means = resampled_means(values, rng), values.mean(axis=0)
        for place, model in enumerate(answers):
            scored = place + len(answers)
            right = Estimate(float(means[place]), draws[:, place])
            if role == "target":
                target[model] = right, Estimate(float(means[scored]), draws[:, scored])
            else:
                prior.setdefault(model, []).append(right)
    known = {model: mean_estimate(estimates) for model, estimates in prior.items()}
    return {
        model: Measured(*target[model], known[model], _retention(known[model], known[model._replace(arm=BASE)]))
        for model in target
    }


def _by_questions(settings: Sequence[Setting]) -> dict[QuestionSet, dict[Model, list[Graded]]]:
    found: dict[QuestionSet, dict[Model, list[Graded]]] = {}
    for place, setting in enumerate(settings):
        for arm in (BASE, *setting.arms):
            benchmarks: dict[tuple[str, str], list[Graded]] = {}
            for row in setting.graded(arm):
                benchmarks.setdefault((row.role, row.benchmark), []).append(row)
            for rows in benchmarks.values():
                found.setdefault(question_set(rows), {})[Model(place, arm)] = rows
    return found


def _values(rows: Sequence[Graded]) -> tuple[list[float], list[float]]:
    return [float(row.correct) for row in rows], [row.score for row in rows]


def _retention(now: Estimate, base: Estimate) -> Estimate | None:
    draws = ratio(now.draws, base.draws)
    return None if draws is None else Estimate(now.value / base.value, draws)
