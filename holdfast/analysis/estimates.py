"""Intervals and tests that cover both what was asked and how training happened to go: questions and replicates.

A measure is a sum of contributions of questions: `values` (replicates, questions) such that replicate r measures
`values[r].sum()`. Weights are part of the contributions: for a mean over B benchmarks a question of a benchmark of n
contributes its answer / (B·n), and `ratio` writes a quotient of two sums in this way. Questions about one image are one
cluster, and what is sampled are clusters, within strata (benchmarks) of fixed weight.

With R replicates of the same questions, in the words of an analysis of variance with crossed random effects:

    variance of the mean = S²/R + max(0, C − I/R)

S² is the variance between replicates' measures. C is the variance that the clusters give the mean of the replicates,
and I that of the interaction of clusters with replicates, which is in both S² and C and must count once (Searle,
Casella and McCulloch 1992, ch. 5). Quantiles are Student's t with degrees of freedom after Welch and Satterthwaite, for
which S² counts (R + 3)/(R − 1) times: where few replicates are alike by luck, S² is small and the plain formula trusts
that it is. The factor was chosen by simulation; bench/coverage.py shows how well the intervals cover.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import stdtr, stdtrit

Ids = np.ndarray | None
Covers = Literal["questions and replicates", "questions only"]
Decision = Literal["better", "worse", "not distinguishable", "no verdict (one replicate)"]
MOST = 1_000_000
"""Times as many replicates or questions as now, beyond which "more would decide it" means never."""


class Estimate(NamedTuple):
    """A measure and its interval, in the measure's unit; the bounds are not numbers where there is one cluster."""

    value: float
    low: float
    high: float
    replicates: int
    """Of the arm that has fewer, in a difference."""
    questions: int
    covers: Covers


class Arm(NamedTuple):
    """What one arm gives to a variance."""

    value: float
    replicates: int
    between: float
    """Variance between the measures of replicates, S²; 0 where there is one."""
    interaction: float
    """The part of it that comes from this choice of clusters, I."""
    residuals: np.ndarray
    """(clusters,) of the mean replicate; their squares sum to C."""
    freedom: int
    """Clusters − strata."""
    questions: int


class Components(NamedTuple):
    """The variance of a mean, or of a difference of two, by where it comes from."""

    value: float
    arms: tuple[Arm, ...]
    common: float
    """What all replicates share of the variance of clusters, max(0, C − I/R)."""
    freedom: float
    questions: int
    replicates: int
    """Of the arm that has fewer."""


def mean(
    values: np.ndarray, clusters: np.ndarray, constant: float = 0.0, level: float = 0.95, strata: Ids = None
) -> Estimate:
    """Mean over replicates of `values` (replicates, questions) summed, plus `constant`.

    `clusters` and `strata` (questions,) are ids; without strata the questions are of one.
    """
    return _estimate(_components(_arm(values, clusters, strata)), constant, level)


def difference(
    a_values: np.ndarray, b_values: np.ndarray, clusters: np.ndarray, level: float = 0.95, strata: Ids = None
) -> tuple[Estimate, float]:
    """a − b of two arms that answered the same questions, and the two-sided p of no difference.

    Paired by question, replicates independent. p is not a number where an arm has one replicate: that a difference is
    more than chance cannot be said without knowing what chance does to a training.
    """
    return differences({"a": a_values, "b": b_values}, clusters, level, strata)["a", "b"]


def differences(
    arms: Mapping[str, np.ndarray], clusters: np.ndarray, level: float = 0.95, strata: Ids = None
) -> dict[tuple[str, str], tuple[Estimate, float]]:
    """`difference` of every pair of arms, first less second in their order."""
    described = {name: _arm(values, clusters, strata) for name, values in arms.items()}
    pairs = {(a, b): _components(described[a], described[b]) for a, b in combinations(described, 2)}
    return {pair: (_estimate(parts, 0.0, level), _p_value(parts)) for pair, parts in pairs.items()}


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Contributions to Σnumerator / Σdenominator: (replicates, questions) and (questions,) → (replicates, questions).

    Each replicate's contributions sum to its ratio. They are linear about the mean ratio (delta method; Cochran 1977,
    ch. 6), so that a question hard for both does not count as uncertainty. Raises ValueError where the denominator is
    not positive.
    """
    total = denominator.sum()
    if not total > 0:
        raise ValueError("a ratio to a sum that is not positive is not defined")
    center = numerator.sum(axis=1).mean() / total
    return (numerator - center * denominator) / total + center / denominator.size


def holm(pvalues: Sequence[float]) -> np.ndarray:
    """p-values corrected for their number (Holm 1979); one that is not a number stays so and is not counted."""
    p = np.asarray(pvalues, dtype=float)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    adjusted = np.full(p.shape, np.nan)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return adjusted


def decide(estimate: Estimate, p_adjusted: float, level: float = 0.95) -> Decision:
    """What may be said of the first arm of a difference, where more of the measure is better."""
    if not math.isfinite(p_adjusted):
        return "no verdict (one replicate)"
    if p_adjusted > 1 - level or estimate.value == 0:
        return "not distinguishable"
    return "better" if estimate.value > 0 else "worse"


def needed_replicates(
    a_values: np.ndarray, b_values: np.ndarray, clusters: np.ndarray, alpha: float = 0.05, strata: Ids = None
) -> int | None:
    """Replicates of each arm with which a difference as large as the present one would be significant at `alpha`.

    `alpha` is after correction. At least the present number; None where none would do, or an arm has one replicate.
    """
    now = _components(_arm(a_values, clusters, strata), _arm(b_values, clusters, strata))

    def with_replicates(count: int) -> Components:
        return now._replace(arms=tuple(arm._replace(replicates=count) for arm in now.arms), replicates=count)

    return _first(now, with_replicates, max(arm.replicates for arm in now.arms), alpha)


def needed_questions(
    a_values: np.ndarray, b_values: np.ndarray, clusters: np.ndarray, alpha: float = 0.05, strata: Ids = None
) -> int | None:
    """Questions like these with which a difference as large as the present one would be significant at `alpha`.

    As `needed_replicates`; the replicates stay as many as they are.
    """
    now = _components(_arm(a_values, clusters, strata), _arm(b_values, clusters, strata))

    def with_questions(count: int) -> Components:
        share = now.questions / count
        saved = [(1 - share) * min(arm.between, arm.interaction) for arm in now.arms]
        arms = tuple(arm._replace(between=arm.between - less) for arm, less in zip(now.arms, saved, strict=True))
        return now._replace(arms=arms, common=now.common * share, freedom=now.freedom / share)

    return _first(now, with_questions, now.questions, alpha)


def _arm(values: np.ndarray, clusters: np.ndarray, strata: Ids) -> Arm:
    if values.shape[1:] != clusters.shape or not np.isfinite(values).all():
        raise ValueError("every question must have one finite contribution a replicate, and one cluster")
    strata = np.zeros(len(clusters), dtype=int) if strata is None else strata
    residuals, freedom = _cluster_residuals(values, clusters, strata)
    measures, count = values.sum(axis=1), len(values)
    between, interaction = 0.0, 0.0
    if count > 1:
        between, interaction = float(measures.var(ddof=1)), float(residuals.var(axis=0, ddof=1).sum())
    return Arm(float(measures.mean()), count, between, interaction, residuals.mean(axis=0), freedom, len(clusters))


def _components(a: Arm, b: Arm | None = None) -> Components:
    arms = (a,) if b is None else (a, b)
    value, residuals = (a.value, a.residuals) if b is None else (a.value - b.value, a.residuals - b.residuals)
    common = max(0.0, float(residuals @ residuals) - sum(arm.interaction / arm.replicates for arm in arms))
    return Components(value, arms, common, a.freedom, a.questions, min(arm.replicates for arm in arms))


def _cluster_residuals(values: np.ndarray, clusters: np.ndarray, strata: np.ndarray) -> tuple[np.ndarray, int]:
    """(replicates, clusters), whose squares sum to the variance that sampling clusters gives a sum; clusters − strata.

    About the mean of their stratum, since its weight is fixed however many questions were drawn.
    """
    kinds, kind = np.unique(strata, return_inverse=True)
    images, image = np.unique(clusters, return_inverse=True)
    pairs = np.unique(kind * len(images) + image) // len(images)
    sampled = np.bincount(pairs, minlength=len(kinds))
    center = _group_sums(values, kind) / np.bincount(kind)
    # n/(n − 1) for the mean that was estimated.
    scale = np.sqrt(sampled / np.maximum(sampled - 1, 1))
    return _group_sums((values - center[:, kind]) * scale[kind], image), len(images) - len(kinds)


def _group_sums(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """(replicates, questions) → (replicates, groups), for ids 0, 1, …"""
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    return np.add.reduceat(values[:, order], starts, axis=1)


def _spread(components: Components) -> tuple[float, float]:
    """Variance and its degrees of freedom."""
    variance, bound, squares = components.common, components.common, components.common**2 / max(components.freedom, 1)
    for arm in components.arms:
        if arm.replicates > 1:
            part, freedom = arm.between / arm.replicates, arm.replicates - 1
            cautious = part * (arm.replicates + 3) / freedom
            variance, bound, squares = variance + part, bound + cautious, squares + cautious**2 / freedom
    return variance, bound**2 / squares if squares else components.freedom


def _estimate(components: Components, constant: float, level: float) -> Estimate:
    variance, freedom = _spread(components)
    value = components.value + constant
    half = math.nan if components.freedom < 1 else float(stdtrit(freedom, 0.5 + level / 2)) * math.sqrt(variance)
    covers: Covers = "questions and replicates" if components.replicates > 1 else "questions only"
    return Estimate(value, value - half, value + half, components.replicates, components.questions, covers)


def _p_value(components: Components) -> float:
    variance, freedom = _spread(components)
    if components.replicates < 2 or components.freedom < 1:
        return math.nan
    if variance == 0:
        return 1.0 if components.value == 0 else 0.0
    return float(2 * stdtr(freedom, -abs(components.value) / math.sqrt(variance)))


def _first(now: Components, planned: Callable[[int], Components], start: int, alpha: float) -> int | None:
    """The smallest count from `start` on whose plan is significant, found by halving."""
    if now.replicates < 2 or not _p_value(planned(start * MOST)) <= alpha:
        return None
    low, high = start - 1, start * MOST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _p_value(planned(middle)) > alpha else (low, middle)
    return high
