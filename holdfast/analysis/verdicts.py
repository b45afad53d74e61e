"""Differences between two arms, and what may be said of them after all pairs have been looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy import stats

from holdfast.analysis.estimates import (
    QUESTIONS_ONLY,
    Estimate,
    Moments,
    Spread,
    bounds,
    error,
    estimate,
    less,
    pooled,
    spread,
)

VerdictWord = Literal["better", "worse", "not distinguishable", "no verdict (one replicate)", "not comparable"]
LEVEL = 0.05
MOST = 1000
"""Replicates, or times as many questions, beyond which none is proposed."""


class Difference(NamedTuple):
    """first − second."""

    estimate: Estimate
    p: float
    """Two-sided; not a number where nothing varies or one replicate alone was trained."""
    parts: tuple[tuple[np.ndarray, int], ...] = ()
    """Variances that it consists of: between the replicates of either, and over questions."""
    within: float = 0.0
    """Of the first parts, what more questions would make smaller."""


class Verdict(NamedTuple):
    """What is said of a and b."""

    a: str
    b: str
    measure: str
    at: str
    difference: Estimate
    p: float
    p_adjusted: float
    verdict: VerdictWord
    needed_replicates: int | None
    """Of each arm, with which this difference, if it stayed as it is, would be told from 0; None where none would do."""
    needed_questions: int | None


def difference(first: Moments, second: Moments, same_questions: bool = True) -> Difference:
    """Of two arms whose replicates are independent; paired by question where they answered the same.

    Their questions' parts are subtracted before they are squared, so what is hard for both falls out. Draws of data and
    base, which both arms share, are paired (`paired`).
    """
    value = first.means.mean(-1) - second.means.mean(-1)
    within = float(spread(first).within + spread(second).within)
    units = min(first.means.shape[-1], second.means.shape[-1])
    return _difference(value, difference_parts(first, second, same_questions), (first, second), units, within)


def difference_parts(
    first: Moments, second: Moments, same_questions: bool = True
) -> tuple[tuple[np.ndarray, int], ...]:
    """Variances of the difference with their degrees of freedom: of either arm's replicates, and of questions."""
    one, other = spread(first), spread(second)
    middle = _paired_questions(first, second, same_questions)
    common = np.maximum(middle - one.within - other.within, 0.0)
    return (one.between, one.freedom[0]), (other.between, other.freedom[0]), (common, _clusters(first, second) - 1)


def paired(pairs: Sequence[tuple[Moments, Moments]], shared: bool) -> Difference:
    """Over draws of data or base that both arms have: the draws' own differences vary, and nothing else."""
    rows = [less(_mean(first), _mean(second)) for first, second in pairs]
    together = pooled(rows, shared)
    found = spread(together)
    parts = ((found.between, found.freedom[0]), (found.questions, found.freedom[1]))
    value = together.means.mean(-1)
    return _difference(value, parts, (together, together), len(pairs), float(np.mean(found.within)))


def _mean(moments: Moments) -> Moments:
    """As one row."""
    return moments._replace(
        means=moments.means.mean(-1, keepdims=True), parts=moments.parts.mean(-2, keepdims=True)
    )


def _paired_questions(first: Moments, second: Moments, same: bool) -> np.ndarray:
    mine, others = first.parts.mean(-2), second.parts.mean(-2)
    if not same or mine.shape[-1] != others.shape[-1]:
        return (mine**2).sum(-1) + (others**2).sum(-1)
    return ((mine - others) ** 2).sum(-1)


def _clusters(first: Moments, second: Moments) -> int:
    return max(2, *(int((m.parts != 0).any(tuple(range(m.parts.ndim - 1))).sum()) for m in (first, second)))


def _difference(
    value: np.ndarray, parts: tuple[tuple[np.ndarray, int], ...], of: tuple[Moments, Moments], units: int, within: float
) -> Difference:
    low, high = bounds(value, parts)
    smaller = min(of, key=lambda moments: moments.means.shape[-1])
    given = estimate(smaller)._replace(
        value=float(np.mean(value)), low=float(np.mean(low)), high=float(np.mean(high)), left_out=of[0].left_out + of[1].left_out
    )
    if units < 2:
        return Difference(given._replace(covers=QUESTIONS_ONLY), float("nan"), parts, within)
    return Difference(given, float(np.mean(p_value(value, parts))), parts, within)


def p_value(value: np.ndarray, parts: Sequence[tuple[np.ndarray, int]]) -> np.ndarray:
    """Two-sided, by Student's t; 1 where neither a difference nor any variance is."""
    scale, freedom = error(parts)
    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.where(value == 0, 0.0, np.abs(value) / scale)
    return 2 * stats.t.sf(t, freedom)


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
    if not np.isfinite(found.p):
        return "no verdict (one replicate)"
    if p_adjusted >= LEVEL:
        return "not distinguishable"
    return "better" if found.estimate.value > 0 else "worse"


def needed(found: Difference, pairs: int) -> tuple[int | None, int | None]:
    """Replicates of each arm, and questions, with which the difference would be told from 0 if it stayed as it is.

    At Bonferroni's level for so many pairs. Chance may move it: of as many as are needed, half would show it.
    """
    counts = np.unique(np.round(np.geomspace(2, MOST, 200)).astype(int))
    *between, questions = found.parts
    now = between[0][1] + 1
    if now < 2 or not found.estimate.value:
        return None, None
    value, level = np.abs(found.estimate.value), LEVEL / max(1, pairs)
    more = [(part * now / counts, free * (counts - 1) / (now - 1)) for part, free in between] + [questions]
    replicates = counts[_p(value, more) < level]
    times = np.concatenate([[1.0], np.geomspace(1.05, MOST, 200)])
    total = float(np.sum([part for part, _ in between]))
    stays = max(total - found.within, 0.0) / total if total else 0.0
    asked = [(part * (stays + (1 - stays) / times), free) for part, free in between]
    larger = times[_p(value, [*asked, (questions[0] / times, questions[1])]) < level]
    return (
        int(replicates[0]) if len(replicates) else None,
        int(np.ceil(found.estimate.questions * larger[0])) if len(larger) else None,
    )


def _p(value: np.ndarray, parts: Sequence[tuple[np.ndarray, int]]) -> np.ndarray:
    """As `p_value`, of many numbers of replicates or questions at once."""
    variance = np.sum(np.broadcast_arrays(*(part for part, _ in parts)), axis=0)
    squares = np.broadcast_arrays(*(np.asarray(part) ** 2 / np.maximum(free, 1) for part, free in parts))
    with np.errstate(invalid="ignore", divide="ignore"):
        return 2 * stats.t.sf(value / np.sqrt(variance), np.maximum(variance**2 / np.sum(squares, axis=0), 1.0))
