"""Dot products of a source's samples with the benchmarks, and how sure they are; of gradient steps and of Adam's.

A bootstrap over prompts, because the rollouts of a prompt are alike. The benchmarks' questions are not redrawn, so the
intervals are about other samples and not about other questions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from holdfast.analysis.bootstrap import (
    MEAN,
    Interval,
    Intervals,
    benchmark_intervals,
    bounded_interval,
    divided,
    ratio,
    resampled_means,
    shares_after,
    training_mean,
    with_prior_mean,
)
from holdfast.analysis.influence_rows import Logged, Rows

RESAMPLES = 2000
KINDS = {"dot": "adam_dot", "exchange": "adam_exchange"}
"""What is measured of both, by its plain name."""
COMPARED_AT = ("last", "training_mean")
"""Where the two stand beside each other: the last checkpoint from which something was learned, and along training."""


class DotProducts(NamedTuple):
    """Measures of every resample, or of the samples themselves as the only one.

    `dot` is Σ w⟨g, V⟩ / Σ n, a benchmark's change in log-likelihood per token for one step of unit learning rate.
    """

    dot: np.ndarray
    """(resamples, steps, benchmarks)."""
    cosine: np.ndarray
    """Mean of the samples' own cosines (resamples, steps, benchmarks)."""
    shares: np.ndarray
    """Of the training that began at each step (steps,)."""

    def at(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """`dot` and `cosine` at a step, or along training after the last one (resamples, benchmarks)."""
        if index < len(self.shares):
            return self.dot[:, index], self.cosine[:, index]
        return training_mean(self.dot, self.shares), training_mean(self.cosine, self.shares)


class Signs(NamedTuple):
    """Pairs of a source and a prior benchmark that have a dot of both kinds."""

    compared: int
    differ: int
    """Pairs whose two dots have opposite signs, and with them the two rates, where there are any."""
    sure: int
    """Of these, pairs in which neither interval holds 0."""


def dot_products(
    rows: Rows,
    steps: Sequence[int],
    resamples: int,
    rng: np.random.Generator | None,
    prompts: Sequence[str] | None = None,
) -> DotProducts:
    """Sum by prompt, redraw the prompts, and measure; without a generator, measure what is there.

    `prompts` are all, or some to which everything is limited but whether anything was learned at a step.
    """
    sums = sums_by_prompt(rows, steps, sorted(set(rows.prompts)) if prompts is None else prompts)
    return _measured(resampled_prompts(sums, resamples, rng), steps, len(rows.benchmarks))


def dot_product_intervals(rows: Rows, steps: Sequence[int], seed: int) -> dict[int | str, dict[str, Intervals]]:
    """`dot`, `mean_cosine` and `exchange` by benchmark, at every step and over the training (`training_mean`)."""
    point = dot_products(rows, steps, 1, None)
    draws = dot_products(rows, steps, RESAMPLES, np.random.default_rng(seed))
    keys: list[int | str] = [*steps, "training_mean"]
    found = {}
    for index, key in enumerate(keys):
        (dot, cosine), (dots, cosines) = point.at(index), draws.at(index)
        found[key] = {
            "dot": benchmark_intervals(rows.benchmarks, dot, dots),
            "mean_cosine": benchmark_intervals(rows.benchmarks, cosine, cosines),
            "exchange": _exchange(rows.benchmarks, dot, dots),
        }
    return found


def tracin_intervals(rows: Rows, logged: Logged, steps: Sequence[int], seed: int) -> dict[str, Intervals]:
    """`tracin` and `adam_tracin` by benchmark.

    A run that kept no `stride` (rate × steps to the next checkpoint) has the sums that it logged, without bounds.
    """
    found, last = {}, logged[steps[-1]]
    for name, dots in (("tracin", rows.weighted_dots), ("adam_tracin", rows.adam_dots)):
        own = rows._replace(weighted_dots=dots)
        strides = strides_of(logged, steps)
        draws = tracin_sums(dot_products(own, steps, RESAMPLES, np.random.default_rng(seed)), strides)
        value = np.array([[last.get(f"{benchmark}/{name}", np.nan) for benchmark in rows.benchmarks]])
        found[name] = benchmark_intervals(rows.benchmarks, value, draws)
    return found


def strides_of(logged: Logged, steps: Sequence[int]) -> np.ndarray:
    """Learning rate × steps from each checkpoint to the next; not a number where it was not kept (steps,)."""
    return np.array([logged[step].get("stride", np.nan) for step in steps])


def tracin_sums(found: DotProducts, strides: np.ndarray) -> np.ndarray:
    """Σ stride × dot over the checkpoints at which both are known (resamples, benchmarks)."""
    terms = found.dot * strides[None, :, None]
    known = np.isfinite(terms)
    return np.where(known.any(1), np.where(known, terms, 0.0).sum(1), np.nan)


def adam_intervals(rows: Rows, steps: Sequence[int], seed: int) -> dict[int | str, dict[str, Intervals]]:
    """`adam_dot` and `adam_exchange` by benchmark, at every step and over the training, each None where unknown."""
    found = dot_product_intervals(rows._replace(weighted_dots=rows.adam_dots), steps, seed)
    return {key: {own: one[plain] for plain, own in KINDS.items()} for key, one in found.items()}


def compare_with_adam(rows: Rows, steps: Sequence[int], seed: int) -> dict[str, Any] | None:
    """Both kinds at the same checkpoints (`last`, `training_mean`), and the step of the last one; None without Adam.

    Along training, the plain kind too lacks the stretch that began where Adam's moments are not known, so that the two
    differ in nothing but the step.
    """
    if not np.isfinite(rows.adam_dots).any():
        return None
    known = np.isfinite(rows.adam_dots)
    plain = dot_product_intervals(rows._replace(weighted_dots=np.where(known, rows.weighted_dots, np.nan)), steps, seed)
    own, step = adam_intervals(rows, steps, seed), last_learned(rows, steps)
    keys: dict[str, int | str] = dict(zip(COMPARED_AT, (step, "training_mean"), strict=True))
    return {"step": step} | {name: {kind: plain[key][kind] for kind in KINDS} | own[key] for name, key in keys.items()}


def last_learned(rows: Rows, steps: Sequence[int]) -> int:
    """The last checkpoint from which something was learned: the final one never is, nor one without advantages."""
    idle = set(rows.idle())
    return max((step for step in steps[:-1] if step not in idle), default=steps[0])


def adam_signs(traces: Iterable[Mapping[str, Any]]) -> dict[str, Signs]:
    """At the checkpoints of `compare_with_adam`, over the prior benchmarks of all sources with dots of both kinds."""
    found = [trace["adam"] for trace in traces if trace["adam"]]
    return {name: _signs([one[name] for one in found]) for name in COMPARED_AT}


def _signs(found: Iterable[Mapping[str, Intervals]]) -> Signs:
    pairs = [
        (plain, own)
        for one in found
        for name in one["exchange"]
        if name != MEAN and (plain := one["dot"][name]) and (own := one["adam_dot"][name])
    ]
    differ = [pair for pair in pairs if pair[0].value * pair[1].value < 0]
    return Signs(len(pairs), len(differ), sum(all(map(_excludes_zero, pair)) for pair in differ))


def _excludes_zero(given: Interval) -> bool:
    return given.low > 0 or given.high < 0


def sums_by_prompt(rows: Rows, steps: Sequence[int], prompts: Sequence[str]) -> np.ndarray:
    """A row for each prompt: Σ n by step; then by step and benchmark Σ w⟨g, V⟩, Σ cosine, and how many cosines.

    A step at which no sample has a weight has no tokens either, so that its dot is unknown and not 0.
    """
    column = {step: index for index, step in enumerate(steps)}
    row = {prompt: index for index, prompt in enumerate(prompts)}
    kept = np.array([prompt in row for prompt in rows.prompts], dtype=bool)
    indices = (
        np.array([row[prompt] for prompt in rows.prompts if prompt in row], dtype=int),
        np.array([column[step] for step in rows.steps[kept].tolist()], dtype=int),
    )
    known = np.isfinite(rows.cosines[kept])
    shape = (len(prompts), len(steps))
    parts = [np.zeros(shape), *(np.zeros((*shape, len(rows.benchmarks))) for _ in range(3))]
    values = (
        np.where(np.isin(rows.steps, rows.idle()), 0.0, rows.tokens)[kept],
        rows.weighted_dots[kept],
        np.where(known, rows.cosines[kept], 0.0),
        known,
    )
    for part, value in zip(parts, values, strict=True):
        np.add.at(part, indices, value)
    return np.concatenate([part.reshape(len(prompts), -1) for part in parts], axis=1)


def resampled_prompts(sums: np.ndarray, resamples: int, rng: np.random.Generator | None) -> np.ndarray:
    """Means, which do as well as sums, since only ratios are taken; of a single prompt, no resample knows anything."""
    if rng is None:
        return sums.mean(axis=0, keepdims=True)
    return resampled_means(sums, rng, resamples) if len(sums) > 1 else np.full((resamples, sums.shape[1]), np.nan)


def _measured(means: np.ndarray, steps: Sequence[int], benchmarks: int) -> DotProducts:
    """From columns as `sums_by_prompt` lays them out."""
    cut = len(steps) * (1 + benchmarks)
    cosines, counted = means[:, cut:].reshape(len(means), 2, len(steps), benchmarks).swapaxes(0, 1)
    return DotProducts(
        dots_from_means(means[:, :cut], steps, benchmarks), divided(cosines, counted), shares_after(steps)
    )


def dots_from_means(means: np.ndarray, steps: Sequence[int], benchmarks: int) -> np.ndarray:
    tokens, dots = means[:, : len(steps), None], means[:, len(steps) :].reshape(len(means), len(steps), benchmarks)
    return divided(dots, np.broadcast_to(tokens, dots.shape))


def _exchange(benchmarks: Sequence[str], point: np.ndarray, draws: np.ndarray) -> Intervals:
    """Forgetting per unit of skill, −prior / target; None where a resample's dot with the target is not positive."""
    skill, drawn = point[:, 0], draws[:, 0]
    values, others = with_prior_mean(benchmarks, -point), with_prior_mean(benchmarks, -draws)
    found: Intervals = {}
    for name in (name for name in values if name != benchmarks[0]):
        rates, value = ratio(others[name], drawn), ratio(values[name], skill)
        found[name] = None if rates is None or value is None else bounded_interval(float(value[0]), rates)
    return found
