"""Differences between two arms, and what may be said of them after all pairs have been looked at."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from holdfast.analysis.estimates import Estimate, Moments, Part, Spread, clusters, estimate, half_width, less, spread

VerdictWord = Literal["better", "worse", "not distinguishable", "no verdict (one replicate)", "not comparable"]
LEVEL = 0.05
MOST = 1000
"""Replicates, or times as many questions, beyond which none is proposed."""
LEAST_P = 1e-12


class Difference(NamedTuple):
    """first − second, with its interval before any correction."""

    estimate: Estimate
    p: float
    """Two-sided; not a number where one of them was trained once."""
    spread: Spread
    """Both arms' replicates are one part of it."""


def difference(first: Moments, second: Moments, same_questions: bool = True) -> Difference:
    """Of two arms whose replicates are independent; paired by question where they answered the same."""
    smaller = min(first, second, key=lambda moments: moments.means.shape[-1])
    whole = estimate(smaller)._replace(value=float(first.means.mean(-1) - second.means.mean(-1)))
    return _tested(whole, difference_spread(first, second, same_questions))


def paired(first: Moments, second: Moments) -> Difference:
    """Over draws of data or base that both arms have, row by row: their differences in each vary, and nothing else."""
    together = less(first, second)
    return _tested(estimate(together), spread(together))


def _tested(whole: Estimate, found: Spread) -> Difference:
    half = float(half_width(found.between, found.questions))
    p = float(p_value(np.array(whole.value), found)) if whole.replicates > 1 else float("nan")
    return Difference(whole._replace(low=whole.value - half, high=whole.value + half), p, found)


def difference_spread(first: Moments, second: Moments, same_questions: bool = True) -> Spread:
    """Of first − second: what is hard for both falls out before the questions' parts are squared."""
    one, other = spread(first), spread(second)
    mine, others = first.parts.mean(-2), second.parts.mean(-2)
    if same_questions and mine.shape[-1] == others.shape[-1]:
        middle = ((mine - others) ** 2).sum(-1)
    else:
        middle = (mine**2).sum(-1) + (others**2).sum(-1)
    within = one.within + other.within
    free = np.full_like(within, clusters(first, second) - 1)
    return Spread(_welch(one.between, other.between), Part(np.maximum(middle - within, 0.0), free), within)


def _welch(one: Part, other: Part) -> Part:
    """Sum of two variances, with Welch's degrees of freedom."""
    variance = one.variance + other.variance
    # Of a single replicate nothing is known, and its part has neither variance nor degrees of freedom.
    both = (one.freedom > 0) & (other.freedom > 0)
    least = np.where(both, np.minimum(one.freedom, other.freedom), one.freedom + other.freedom)
    with np.errstate(invalid="ignore", divide="ignore"):
        free = variance**2 / sum(part.variance**2 / np.maximum(part.freedom, 1) for part in (one, other))
    return Part(variance, np.where(np.isfinite(free), np.maximum(free, least), least))


def p_value(value: np.ndarray, found: Spread) -> np.ndarray:
    """The level whose interval just reaches from the value to 0; `LEAST_P` at least."""
    low, high = np.full(np.shape(value), np.log(LEAST_P)), np.zeros(np.shape(value))
    for _ in range(40):
        middle = (low + high) / 2
        excluded = half_width(found.between, found.questions, np.exp(middle)) < np.abs(value)
        low, high = np.where(excluded, low, middle), np.where(excluded, middle, high)
    unknown = ~np.isfinite(value) | ~np.isfinite(found.questions.variance)
    return np.where(unknown, np.nan, np.exp(high))


def holm(p: np.ndarray) -> np.ndarray:
    """Adjusted p-values (…, tests), below 0.05 with all others tested as well (Holm 1979); NaN tests are none."""
    order = np.argsort(p, -1)
    count = np.isfinite(p).sum(-1, keepdims=True)
    ordered = np.take_along_axis(p, order, -1) * np.maximum(count - np.arange(p.shape[-1]), 1)
    stepped = np.minimum(np.fmax.accumulate(ordered, -1), 1.0)
    found = np.empty_like(stepped)
    np.put_along_axis(found, order, stepped, -1)
    return np.where(np.isfinite(p), found, np.nan)


def word(found: Difference, p_adjusted: float) -> VerdictWord:
    """What may be said of the first."""
    if not np.isfinite(found.estimate.value):
        return "not comparable"
    if found.estimate.replicates < 2:
        return "no verdict (one replicate)"
    if not p_adjusted < LEVEL:
        return "not distinguishable"
    return "better" if found.estimate.value > 0 else "worse"


def needed(found: Difference, pairs: int) -> tuple[int | None, int | None]:
    """Replicates of each arm, and questions, with which the difference would be told from 0 if it stayed as it is.

    At Bonferroni's level for so many pairs. Of studies of that size half would tell it, where it is as large in truth.
    """
    between, questions, within = found.spread
    count, value, level = found.estimate.replicates, abs(found.estimate.value), LEVEL / max(1, pairs)
    if count < 2 or not value or not np.isfinite(value):
        return None, None
    counts = np.unique(np.round(np.geomspace(2, MOST, 200)).astype(int))
    more = Part(between.variance * count / counts, between.freedom * (counts - 1) / (count - 1))
    replicates = counts[half_width(more, questions, level) < value]
    times = np.concatenate([[1.0], np.geomspace(1.05, MOST, 200)])
    stays = np.maximum(between.variance - within, 0.0)
    asked = Part(stays + (between.variance - stays) / times, between.freedom)
    larger = times[half_width(asked, Part(questions.variance / times, questions.freedom), level) < value]
    return (
        int(replicates[0]) if len(replicates) else None,
        int(np.ceil(found.estimate.questions * larger[0])) if len(larger) else None,
    )
