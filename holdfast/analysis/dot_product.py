"""How sure the pull of a source's samples is: a bootstrap over prompts, because the rollouts of a prompt are alike.

The benchmarks' questions are not redrawn, so the intervals are about other samples and not about other questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from holdfast.analysis.influence_rows import Rows
from holdfast.analysis.statistics import ratio, resampled_means
from holdfast.analysis.training_mean import Found, along, bounded, named, over, shares, with_mean

RESAMPLES = 2000
TESTS = 20_000
"""Resamples behind a p-value: its least value is 1 / TESTS, and Holm multiplies that by the number of comparisons."""
ALIKE = 0.1
"""Share of the longer completion by which two may differ in tokens and still count as equally long."""


class Pull(NamedTuple):
    """Measures of every resample, or of the samples themselves as the only one.

    `dot` is Σ w⟨g, V⟩ / Σ n, a benchmark's change in log-likelihood per token for one step of unit learning rate.
    """

    dot: np.ndarray
    """(resamples, steps, benchmarks)."""
    cosine: np.ndarray
    """Mean of the samples' own cosines (resamples, steps, benchmarks)."""
    shares: np.ndarray
    """Of the training that began at each step (steps,)."""

    def at(self, place: int) -> tuple[np.ndarray, np.ndarray]:
        """`dot` and `cosine` at a step, or along training after the last one (resamples, benchmarks)."""
        if place < len(self.shares):
            return self.dot[:, place], self.cosine[:, place]
        return along(self.dot, self.shares), along(self.cosine, self.shares)


class Difference(NamedTuple):
    """Two sources on the prompts that both have, first − second, along training."""

    prompts: int
    samples: tuple[int, int]
    """How many of each source, all checkpoints together."""
    dot: Found
    p: dict[str, float]
    """Two-sided, not corrected, by benchmark."""


def pull(
    rows: Rows,
    steps: Sequence[int],
    resamples: int,
    rng: np.random.Generator | None,
    prompts: Sequence[str] | None = None,
) -> Pull:
    """Sum by prompt, redraw the prompts, and measure; without a generator, measure what is there.

    `prompts` are all, or some to which everything is limited but whether anything was learned at a step.
    """
    sums = _by_prompt(rows, steps, sorted(set(rows.prompts)) if prompts is None else prompts)
    return _measured(_redrawn(sums, resamples, rng), steps, len(rows.benchmarks))


def intervals(rows: Rows, steps: Sequence[int], seed: int) -> dict[int | str, dict[str, Found]]:
    """`dot`, `mean_cosine` and `exchange` by benchmark, at every step and along the training (`along`)."""
    point = pull(rows, steps, 1, None)
    draws = pull(rows, steps, RESAMPLES, np.random.default_rng(seed))
    places: list[int | str] = [*steps, "along"]
    found = {}
    for index, place in enumerate(places):
        (dot, cosine), (dots, cosines) = point.at(index), draws.at(index)
        found[place] = {
            "dot": named(rows.benchmarks, dot, dots),
            "mean_cosine": named(rows.benchmarks, cosine, cosines),
            "exchange": _exchange(rows.benchmarks, dot, dots),
        }
    return found


def difference(
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
    sums = [_by_prompt(rows, at, common)[:, : len(at) * (1 + len(names))] for rows, at in zip(pair, steps, strict=True)]
    joined, cut = np.concatenate(sums, axis=1), sums[0].shape[1]

    def subtracted(means: np.ndarray) -> np.ndarray:
        parts = zip((means[:, :cut], means[:, cut:]), steps, strict=True)
        first, second = (along(_dots(part, at, len(names)), shares(at)) for part, at in parts)
        return first - second

    point, draws = subtracted(_redrawn(joined, 1, None)), subtracted(_redrawn(joined, resamples, rng))
    both = set(common)
    held = [sum(prompt in both for prompt in rows.prompts) for rows in pair]
    return Difference(len(common), (held[0], held[1]), named(names, point, draws), _p_values(names, draws, len(common)))


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


def _by_prompt(rows: Rows, steps: Sequence[int], prompts: Sequence[str]) -> np.ndarray:
    """A row for each prompt: Σ n by step; then by step and benchmark Σ w⟨g, V⟩, Σ cosine, and how many cosines.

    A step at which no sample has a weight has no tokens either, so that its dot is unknown and not 0.
    """
    at = {step: place for place, step in enumerate(steps)}
    row = {prompt: place for place, prompt in enumerate(prompts)}
    kept = np.array([prompt in row for prompt in rows.prompts], dtype=bool)
    place = (
        np.array([row[prompt] for prompt in rows.prompts if prompt in row], dtype=int),
        np.array([at[step] for step in rows.steps[kept].tolist()], dtype=int),
    )
    known = np.isfinite(rows.cosines[kept])
    shape = (len(prompts), len(steps))
    parts = [np.zeros(shape), *(np.zeros((*shape, len(rows.benchmarks))) for _ in range(3))]
    values = (
        np.where(np.isin(rows.steps, rows.idle()), 0.0, rows.tokens)[kept],
        rows.pulls[kept],
        np.where(known, rows.cosines[kept], 0.0),
        known,
    )
    for part, value in zip(parts, values, strict=True):
        np.add.at(part, place, value)
    return np.concatenate([part.reshape(len(prompts), -1) for part in parts], axis=1)


def _redrawn(sums: np.ndarray, resamples: int, rng: np.random.Generator | None) -> np.ndarray:
    """Means, which do as well as sums, since only ratios are taken; of a single prompt, no resample knows anything."""
    if rng is None:
        return sums.mean(axis=0, keepdims=True)
    return resampled_means(sums, rng, resamples) if len(sums) > 1 else np.full((resamples, sums.shape[1]), np.nan)


def _measured(means: np.ndarray, steps: Sequence[int], benchmarks: int) -> Pull:
    """From columns as `_by_prompt` lays them out."""
    cut = len(steps) * (1 + benchmarks)
    cosines, counted = means[:, cut:].reshape(len(means), 2, len(steps), benchmarks).swapaxes(0, 1)
    return Pull(_dots(means[:, :cut], steps, benchmarks), over(cosines, counted), shares(steps))


def _dots(means: np.ndarray, steps: Sequence[int], benchmarks: int) -> np.ndarray:
    tokens, pulls = means[:, : len(steps), None], means[:, len(steps) :].reshape(len(means), len(steps), benchmarks)
    return over(pulls, np.broadcast_to(tokens, pulls.shape))


def _exchange(benchmarks: Sequence[str], point: np.ndarray, draws: np.ndarray) -> Found:
    """Forgetting per unit of skill, −prior / target; None where a resample's target pull is not positive."""
    skill, drawn = point[:, 0], draws[:, 0]
    values, others = with_mean(benchmarks, -point), with_mean(benchmarks, -draws)
    found: Found = {}
    for name in (name for name in values if name != benchmarks[0]):
        rates, value = ratio(others[name], drawn), ratio(values[name], skill)
        found[name] = None if rates is None or value is None else bounded(float(value[0]), rates)
    return found


def _p_values(benchmarks: Sequence[str], draws: np.ndarray, prompts: int) -> dict[str, float]:
    """How often a resample lies on the other side of 0, doubled; with the sample itself counted as one.

    Never less than a sign test can give on so many prompts: resamples of a handful of prompts are all alike, and would
    call anything significant.
    """
    found = {}
    for place, name in enumerate(benchmarks):
        known = draws[np.isfinite(draws[:, place]), place]
        tail = min((known <= 0).sum(), (known >= 0).sum())
        found[name] = float(min(1.0, max(2 * (tail + 1) / (len(known) + 1), 2.0 ** (1 - prompts))))
    return found


def _has_partner(own: Rows, other: Rows) -> np.ndarray:
    lengths: dict[str, set[float]] = {}
    for prompt, tokens in zip(other.prompts, other.tokens.tolist(), strict=True):
        lengths.setdefault(prompt, set()).add(tokens)
    return np.array(
        [
            any(abs(tokens - there) <= ALIKE * max(tokens, there) for there in lengths.get(prompt, ()))
            for prompt, tokens in zip(own.prompts, own.tokens.tolist(), strict=True)
        ],
        dtype=bool,
    )
