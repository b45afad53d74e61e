"""Values at the checkpoints of a stage, put together along its training and given intervals by benchmark."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from holdfast.analysis.statistics import Interval, interval

MEAN = "mean"
"""Beside the benchmarks' names: the mean over the prior ones."""
ROUNDING = 1e-12
"""Relative to what is added up."""
Found = dict[str, Interval | None]


def shares(steps: Sequence[int]) -> np.ndarray:
    """The part of the training that began at each checkpoint: none at the last one."""
    ahead = np.diff([*steps, steps[-1]]).astype(float)
    return ahead / ahead.sum() if ahead.sum() else np.ones(len(steps)) / len(steps)


def led(steps: Sequence[int]) -> np.ndarray:
    """The part of the training that led to each checkpoint: none to the first one."""
    behind = np.diff([steps[0], *steps]).astype(float)
    return behind / behind.sum() if behind.sum() else np.zeros(len(steps))


def along(values: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Mean over the steps of training, of which each checkpoint has its part (resamples, benchmarks).

    A checkpoint at which a resample has nothing is left out of its mean.
    """
    known = np.isfinite(values) & (parts > 0)[None, :, None]
    weights = np.where(known, parts[None, :, None], 0.0)
    return over((weights * np.where(known, values, 0.0)).sum(1), weights.sum(1))


def over(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Their ratio; not a number where the denominator is not positive."""
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)


def with_mean(benchmarks: Sequence[str], values: np.ndarray) -> dict[str, np.ndarray]:
    """Columns by benchmark, of which the target is the first, and their mean over the prior ones."""
    columns = {name: values[:, place] for place, name in enumerate(benchmarks)}
    prior = values[:, 1:]
    mean = prior.mean(axis=1)
    # What cancels leaves rounding, which would be told as a tiny difference.
    return columns | {MEAN: np.where(np.abs(mean) < ROUNDING * np.abs(prior).mean(axis=1), 0.0, mean)}


def named(benchmarks: Sequence[str], point: np.ndarray, draws: np.ndarray) -> Found:
    """Intervals by benchmark and of the prior mean: (1, benchmarks) among (resamples, benchmarks)."""
    values, drawn = with_mean(benchmarks, point), with_mean(benchmarks, draws)
    return {name: bounded(float(values[name][0]), drawn[name]) for name in values}


def bounded(value: float, draws: np.ndarray) -> Interval | None:
    """Without the resamples in which there was nothing to measure; no bounds where these are all."""
    known = draws[np.isfinite(draws)]
    if not np.isfinite(value):
        return None
    return interval(value, known) if len(known) else Interval(value, math.nan, math.nan)
