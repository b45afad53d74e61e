"""Intervals that cover the questions and the replicates: other ones might have been asked and trained.

A measure of R replicates on the same questions is y_r = μ + a_r + b + c_r: a_r belongs to the replicate, b to the
questions (hard ones are hard for all replicates) and c_r to both. With S² the variance of the y_r,

    var(ȳ) = A + V,    A = S² / R,    V = Σ_g ū_g² − C / R,

where ū_g is what cluster g of questions adds to the error of ȳ (Σ_g ū_g² is the variance of ȳ over questions with these
replicates), and C = Σ_r Σ_g (u_rg − ū_g)² / (R − 1) the part of it that is c_r, which S² has already. These are the
components of studies of many readers and many cases (Dorfman, Berbaum and Metz 1992; Hillis 2007), replicates as
readers. A has R − 1 degrees of freedom, V one less than there are clusters. The squared half-width of the interval is a
mean of two: a quarter of t² (A + V) with Welch and Satterthwaite's degrees of freedom, too narrow where few replicates
are alike by luck, and three quarters of t_A² A + t_V² V, each part with its own, too wide where both are as large.
bench/coverage.py measures how often such intervals hold the truth (docs/results.md). One replicate has V alone, and its
interval covers questions only. Where all answers are alike nothing varies, and the interval has no width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.special import stdtrit

LEVEL = 0.95
APART = 0.75
"""Weight of the second of the two squared half-widths, by simulation."""
QUESTIONS_ONLY, REPLICATES, SEEDS = "questions only", "questions and replicates", "questions, replicates and seeds"


class Estimate(NamedTuple):
    """A measure with its 95 % interval; not a number where nothing is known."""

    value: float
    low: float
    high: float
    replicates: int
    questions: int
    covers: str
    """`QUESTIONS_ONLY`, `REPLICATES`, or, over several draws of data or base, `SEEDS`."""


class Moments(NamedTuple):
    """A measure of every replicate, and what clusters of questions add to its error. Leading axes are simulations."""

    means: np.ndarray
    """(…, replicates)."""
    parts: np.ndarray
    """(…, replicates, clusters): they add up to 0; the square of the sum's error is the sum of their squares. Without
    clusters where the means vary by their questions already."""
    questions: int = 0
    seeds: bool = False
    """Rows are draws of data or base, not replicates."""
    left_out: int = 0
    """Values that are not finite."""

    @property
    def covers(self) -> str:
        """What its interval covers."""
        return SEEDS if self.seeds else REPLICATES if self.means.shape[-1] > 1 else QUESTIONS_ONLY


class Part(NamedTuple):
    """A variance with its degrees of freedom."""

    variance: np.ndarray
    freedom: np.ndarray


class Spread(NamedTuple):
    """What the variance of a mean consists of."""

    between: Part
    """A, of replicates; 0 with 0 degrees of freedom of a single one."""
    questions: Part
    """V."""
    within: np.ndarray
    """C / R, of A the part that more questions make smaller."""


def mean_of(values: np.ndarray, strata: np.ndarray, clusters: np.ndarray) -> Moments:
    """Mean over strata (benchmarks) of the mean over their questions.

    Args:
        values: (…, replicates, questions); what is not finite is left out and counted.
        strata: (questions,) from 0; questions below 0 are none of the measure's.
        clusters: (questions,) from 0: questions about one image.
    """
    used = strata >= 0
    values, strata, clusters = values[..., used], strata[used], clusters[used]
    names, codes = np.unique(strata, return_inverse=True)
    member = (codes[:, None] == np.arange(len(names))).astype(float)
    count, width = len(clusters), int(clusters.max(initial=0)) + 1
    by_cluster = sparse.csr_array((np.ones(count), clusters, np.arange(count + 1)), shape=(count, width))
    known = np.isfinite(values)
    filled = np.where(known, values, 0.0)
    counts = known.astype(float) @ member
    with np.errstate(invalid="ignore", divide="ignore"):
        by_stratum = (filled @ member) / counts
        groups = (member.T @ by_cluster > 0).sum(1)
        # A mean of n takes one degree of freedom, as in n / (n − 1).
        scale = np.sqrt(groups / (groups - 1.0))
        weights = (1.0 / (counts * len(names))) * scale
    errors = np.where(known, values - by_stratum[..., codes], 0.0) * np.nan_to_num(weights)[..., codes]
    parts = np.ascontiguousarray(errors.reshape(-1, count) @ by_cluster).reshape(*errors.shape[:-1], width)
    if (groups < 2).any():
        parts[:] = np.nan
    return Moments(by_stratum.mean(-1), parts, int(used.sum()), left_out=int((~known).sum()))


def of_trainings(values: np.ndarray) -> Moments:
    """A measure for which no question is asked (replicates,); of one training without an interval."""
    return Moments(values, np.full((len(values), 1), 0.0 if len(values) > 1 else np.nan))


def ratio(now: Moments, base: Moments) -> Moments:
    """now / base, of one base: its parts by the delta method about the mean over replicates."""
    known = np.where(base.means > 0, base.means, np.nan)
    kept = now.means / known
    middle = kept.mean(-1, keepdims=True)[..., None]
    first, second = _padded(now.parts, base.parts)
    return now._replace(means=kept, parts=(first - middle * second) / known[..., None])


def less(first: Moments, second: Moments) -> Moments:
    """first − second, replicate by replicate, or of one base (then `second` has one row)."""
    one, other = _padded(first.parts, second.parts)
    left_out = first.left_out + second.left_out
    return first._replace(means=first.means - second.means, parts=one - other, left_out=left_out)


def weighted(terms: Sequence[tuple[float | np.ndarray, Moments]]) -> Moments:
    """Σ weight · measure, replicate by replicate; a weight may differ between replicates."""
    weights, measures = zip(*terms, strict=True)
    padded = _padded(*(one.parts for one in measures))
    return measures[0]._replace(
        means=sum(weight * one.means for weight, one in terms),
        parts=sum(np.asarray(weight)[..., None] * parts for weight, parts in zip(weights, padded, strict=True)),
    )


def pooled(draws: Sequence[Moments], shared: bool) -> Moments:
    """Draws of data or base as the rows of one measure, each the mean over its replicates; one draw as it is.

    `shared`: all draws were asked the same questions. Otherwise their means vary by these too, and nothing is added.
    """
    if len(draws) == 1:
        return draws[0]
    means = np.stack([draw.means.mean(-1) for draw in draws], -1)
    parts = np.stack([part.mean(-2) for part in _padded(*(draw.parts for draw in draws))], -2)
    left_out = sum(draw.left_out for draw in draws)
    return Moments(means, parts if shared else parts[..., :0], draws[0].questions, True, left_out)


def spread(moments: Moments) -> Spread:
    """The parts of the variance of the mean over replicates."""
    count = moments.means.shape[-1]
    middle = moments.parts.mean(-2)
    over_questions = (middle**2).sum(-1)
    free = np.full_like(over_questions, clusters(moments) - 1)
    nothing = np.zeros_like(over_questions)
    if count < 2:
        return Spread(Part(nothing, nothing), Part(over_questions, free), nothing)
    within = ((moments.parts - middle[..., None, :]) ** 2).sum((-1, -2)) / (count - 1) / count
    between = moments.means.var(-1, ddof=1) / count
    common = np.maximum(over_questions - within, 0.0)
    return Spread(Part(between, np.full_like(between, count - 1)), Part(common, free), within)


def clusters(*of: Moments) -> int:
    """How many clusters take part, of the measure that has most; 2 at least."""
    return max(2, *(int((m.parts != 0).any(tuple(range(m.parts.ndim - 1))).sum()) for m in of))


def half_width(between: Part, questions: Part, level: np.ndarray | float = 1 - LEVEL) -> np.ndarray:
    """Half of the interval that misses the truth with probability `level`."""
    total = between.variance + questions.variance
    one, other = (part.variance**2 / np.maximum(part.freedom, 1e-9) for part in (between, questions))
    with np.errstate(invalid="ignore", divide="ignore"):
        freedom = np.where(total > 0, total**2 / (one + other), 1.0)
    together = stdtrit(np.maximum(freedom, 1.0), level / 2) ** 2 * total
    apart = sum(stdtrit(np.maximum(part.freedom, 1.0), level / 2) ** 2 * part.variance for part in (between, questions))
    return np.sqrt((1 - APART) * together + APART * apart)


def estimate(moments: Moments) -> Estimate:
    """The mean over replicates with its interval."""
    found, value = spread(moments), float(moments.means.mean(-1))
    half = float(half_width(found.between, found.questions))
    count = moments.means.shape[-1]
    return Estimate(value, value - half, value + half, count, moments.questions, moments.covers)


def _padded(*parts: np.ndarray) -> list[np.ndarray]:
    """All as wide as the widest, with clusters that have no part in them."""
    width = max(part.shape[-1] for part in parts)
    if all(part.shape[-1] == width for part in parts):
        return list(parts)
    return [np.pad(part, [(0, 0)] * (part.ndim - 1) + [(0, width - part.shape[-1])]) for part in parts]
