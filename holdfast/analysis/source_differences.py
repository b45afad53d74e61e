"""How two sources differ in their dot products and what is made of them, on the prompts that both have.

The same prompts are redrawn for both. What is no dot product is in `holdfast/analysis/magnitudes.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from holdfast.analysis.bootstrap import Intervals, benchmark_intervals, shares_after, training_mean
from holdfast.analysis.dot_product import (
    RESAMPLES,
    dot_products,
    dots_from_means,
    resampled_prompts,
    strides_of,
    sums_by_prompt,
    tracin_sums,
)
from holdfast.analysis.influence_rows import Logged, Rows

TESTS = 20_000
"""Resamples behind a p-value: its least value is 1 / TESTS, and Holm multiplies that by the number of comparisons."""
SIMILAR_LENGTH = 0.1
"""Share of the longer completion by which two may differ in tokens and still count as equally long."""


class Difference(NamedTuple):
    """Two sources on the prompts that both have, first − second, along training."""

    prompts: int
    samples: tuple[int, int]
    """How many of each source, all checkpoints together."""
    dot: Intervals
    p: dict[str, float]
    """Two-sided, not corrected, by benchmark."""


def dot_product_difference(
    pair: tuple[Rows, Rows], steps: tuple[Sequence[int], Sequence[int]], resamples: int, rng: np.random.Generator
) -> Difference | None:
    """Paired on the prompts that both have; None if these are fewer than two.

    Raises:
        ValueError: the two were measured on different benchmarks.
    """
    if pair[0].benchmarks != pair[1].benchmarks:
        raise ValueError("two influence runs have different benchmarks and cannot be compared")
    common = sorted(set(pair[0].prompts) & set(pair[1].prompts))
    if len(common) < 2:
        return None
    names = pair[0].benchmarks
    sums = [
        sums_by_prompt(rows, at, common)[:, : len(at) * (1 + len(names))] for rows, at in zip(pair, steps, strict=True)
    ]
    joined, cut = np.concatenate(sums, axis=1), sums[0].shape[1]

    def subtracted(means: np.ndarray) -> np.ndarray:
        parts = zip((means[:, :cut], means[:, cut:]), steps, strict=True)
        first, second = (training_mean(dots_from_means(part, at, len(names)), shares_after(at)) for part, at in parts)
        return first - second

    point, draws = subtracted(resampled_prompts(joined, 1, None)), subtracted(resampled_prompts(joined, resamples, rng))
    both = set(common)
    held = [sum(prompt in both for prompt in rows.prompts) for rows in pair]
    return Difference(
        len(common), (held[0], held[1]), benchmark_intervals(names, point, draws), _p_values(names, draws, len(common))
    )


def equally_long(pair: tuple[Rows, Rows]) -> tuple[Rows, Rows]:
    """Samples that have one of about as many tokens on the other side, for the same prompt, at whatever checkpoint.

    One side's sample may stand for several of the other's, so lengths are alike but not paired one to one.
    """
    kept = [_has_partner(own, other) for own, other in (pair, pair[::-1])]
    return pair[0].where(kept[0]), pair[1].where(kept[1])


def holm(p: Mapping[tuple[str, ...], float]) -> dict[tuple[str, ...], float]:
    """Adjusted p-values: significant at α means significant with all others tested as well (Holm 1979)."""
    adjusted: dict[tuple[str, ...], float] = {}
    least = 0.0
    for index, name in enumerate(sorted(p, key=lambda name: p[name])):
        least = max(least, min(1.0, (len(p) - index) * p[name]))
        adjusted[name] = least
    return {name: adjusted[name] for name in p}


def paired_differences(
    pair: tuple[Rows, Rows], logged: tuple[Logged, Logged], steps: tuple[Sequence[int], Sequence[int]], seed: int
) -> dict[str, Intervals]:
    """First − second along training: `mean_cosine`, `adam_dot`, and `exchange` and `tracin` of both kinds of step.

    Nothing where the common prompts are fewer than two. An exchange rate is missing where either source has a
    resample whose dot product with the target is not positive.
    """
    common = sorted(set(pair[0].prompts) & set(pair[1].prompts))
    if len(common) < 2:
        return {}
    first, second = (
        dict(_drawn(rows, (at, strides_of(known, at)), common, seed))
        for rows, known, at in zip(pair, logged, steps, strict=True)
    )
    return {
        name: benchmark_intervals(
            pair[0].benchmarks, *(own - other for own, other in zip(first[name], second[name], strict=True))
        )
        for name in first
    }


def _drawn(
    rows: Rows, steps: tuple[Sequence[int], np.ndarray], prompts: Sequence[str], seed: int
) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray]]]:
    """`steps` has the steps and the stride from each."""
    at, strides = steps
    for kind, weighted in (("", rows.weighted_dots), ("adam_", rows.adam_dots)):
        own = rows._replace(weighted_dots=weighted)
        # The same seed draws the same prompts for every source and measure.
        drawn = np.random.default_rng(seed)
        both = dot_products(own, at, 1, None, prompts), dot_products(own, at, RESAMPLES, drawn, prompts)
        (dot, cosine), (dots, cosines) = (one.at(len(at)) for one in both)
        if kind:
            yield "adam_dot", (dot, dots)
        else:
            yield "mean_cosine", (cosine, cosines)
        yield f"{kind}exchange", _rates(dot, dots)
        yield f"{kind}tracin", (tracin_sums(both[0], strides), tracin_sums(both[1], strides))


def _rates(point: np.ndarray, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Forgetting per unit of skill of the prior benchmarks; none where some dot with the target is not positive."""
    known = (point[:, 0] > 0).all() and (draws[:, 0] > 0).all()
    rates = [np.full_like(one, np.nan) for one in (point, draws)]
    for rate, one in zip(rates, (point, draws), strict=True):
        if known:
            rate[:, 1:] = -one[:, 1:] / one[:, :1]
    return rates[0], rates[1]


def _p_values(benchmarks: Sequence[str], draws: np.ndarray, prompts: int) -> dict[str, float]:
    """How often a resample lies on the other side of 0, doubled; with the sample itself counted as one.

    Never less than a sign test can give on so many prompts: resamples of a handful of prompts are all alike, and would
    call anything significant.
    """
    found = {}
    for index, name in enumerate(benchmarks):
        known = draws[np.isfinite(draws[:, index]), index]
        tail = min((known <= 0).sum(), (known >= 0).sum())
        found[name] = float(min(1.0, max(2 * (tail + 1) / (len(known) + 1), 2.0 ** (1 - prompts))))
    return found


def _has_partner(own: Rows, other: Rows) -> np.ndarray:
    lengths: dict[str, set[float]] = {}
    for prompt, tokens in zip(other.prompts, other.tokens.tolist(), strict=True):
        lengths.setdefault(prompt, set()).add(tokens)
    return np.array(
        [
            any(abs(tokens - there) <= SIMILAR_LENGTH * max(tokens, there) for there in lengths.get(prompt, ()))
            for prompt, tokens in zip(own.prompts, own.tokens.tolist(), strict=True)
        ],
        dtype=bool,
    )
