"""Bootstrap intervals: the uncertainty of asking these questions, or learning from these prompts, and not others.

They say nothing of another training seed. All models answer the same questions, so they are resampled together and a
difference between two of them is paired (Efron and Tibshirani 1993, ch. 8 and 13). What is measured at the checkpoints
of a stage is put together as a mean over its training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 4000
BLOCK = 250
"""Resamples drawn at a time, which bounds memory for large benchmarks."""
MEAN = "mean"
"""Beside the benchmarks' names: the mean over the prior ones."""
ROUNDING = 1e-12
"""Relative to what is added up."""


class Interval(NamedTuple):
    value: float
    low: float
    high: float


def resampled_means(values: np.ndarray, rng: np.random.Generator, resamples: int = RESAMPLES) -> np.ndarray:
    """Column means of redrawn rows: (questions, columns) → (resamples, columns).

    All columns of a resample share the questions drawn, which is what pairs them.
    """
    questions, columns = values.shape
    means = np.empty((resamples, columns))
    for start in range(0, resamples, BLOCK):
        size = min(BLOCK, resamples - start)
        times = rng.multinomial(questions, np.full(questions, 1 / questions), size=size)
        means[start : start + size] = times @ values / questions
    return means


def interval(value: float, draws: np.ndarray, level: float = 0.95) -> Interval:
    """Percentile interval around a point estimate."""
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(draws, [tail, 100 - tail])
    return Interval(float(value), float(low), float(high))


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray | None:
    """Draws of a ratio of two means; None if its denominator can be zero."""
    return numerator / denominator if np.all(denominator > 0) else None


Intervals = dict[str, Interval | None]


def shares_after(steps: Sequence[int]) -> np.ndarray:
    """The part of the training that began at each checkpoint: none at the last one."""
    ahead = np.diff([*steps, steps[-1]]).astype(float)
    return ahead / ahead.sum() if ahead.sum() else np.ones(len(steps)) / len(steps)


def shares_before(steps: Sequence[int]) -> np.ndarray:
    """The part of the training that led to each checkpoint: none to the first one."""
    behind = np.diff([steps[0], *steps]).astype(float)
    return behind / behind.sum() if behind.sum() else np.zeros(len(steps))


def training_mean(values: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Mean over the steps of training, of which each checkpoint has its part (resamples, benchmarks).

    A checkpoint at which a resample has nothing is left out of its mean.
    """
    known = np.isfinite(values) & (parts > 0)[None, :, None]
    weights = np.where(known, parts[None, :, None], 0.0)
    return divided((weights * np.where(known, values, 0.0)).sum(1), weights.sum(1))


def divided(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Their ratio; not a number where the denominator is not positive."""
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)


def with_prior_mean(benchmarks: Sequence[str], values: np.ndarray) -> dict[str, np.ndarray]:
    """Columns by benchmark, of which the target is the first, and their mean over the prior ones."""
    columns = {name: values[:, index] for index, name in enumerate(benchmarks)}
    prior = values[:, 1:]
    mean = prior.mean(axis=1)
    # What cancels leaves rounding, which would be shown as a tiny difference.
    return columns | {MEAN: np.where(np.abs(mean) < ROUNDING * np.abs(prior).mean(axis=1), 0.0, mean)}


def benchmark_intervals(benchmarks: Sequence[str], point: np.ndarray, draws: np.ndarray) -> Intervals:
    """Intervals by benchmark and of the prior mean: (1, benchmarks) among (resamples, benchmarks)."""
    values, drawn = with_prior_mean(benchmarks, point), with_prior_mean(benchmarks, draws)
    return {name: bounded_interval(float(values[name][0]), drawn[name]) for name in values}


def bounded_interval(value: float, draws: np.ndarray) -> Interval | None:
    """Without the resamples in which there was nothing to measure; no bounds where these are all."""
    known = draws[np.isfinite(draws)]
    if not np.isfinite(value):
        return None
    return interval(value, known) if len(known) else Interval(value, math.nan, math.nan)
