"""Bootstrap intervals over questions: the uncertainty of asking these questions and not others.

They say nothing of another training seed. Every model answers the same questions, so all models are resampled
together and a difference between two of them is paired (Efron and Tibshirani 1993, ch. 8 and 13).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

RESAMPLES = 4000
BLOCK = 250
"""Resamples drawn at a time, which bounds memory for large benchmarks."""


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
