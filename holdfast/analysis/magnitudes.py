"""How sure the measures of a source are that are no dot products: magnitudes, directions, perplexity.

All are functions of sums over samples, whose summands influence keeps, times a factor that only the benchmark knows
(its tokens, its ‖A‖, its ‖V‖). What was logged is the value; a bootstrap over prompts, as that of dot products, says
in what proportion it varies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from holdfast.analysis.bootstrap import (
    Intervals,
    benchmark_intervals,
    resampled_means,
    shares_after,
    shares_before,
    training_mean,
)
from holdfast.analysis.dot_product import RESAMPLES
from holdfast.analysis.influence_rows import Logged, Rows
from holdfast.analysis.measure_sums import SumMeasure, measure_sums


class Drawn(NamedTuple):
    """A measure at all steps: of the prompts themselves, and of every resample of them."""

    point: np.ndarray
    """(1, steps, benchmarks)."""
    draws: np.ndarray
    """(resamples, steps, benchmarks)."""
    shares: np.ndarray
    """Of the training, by which steps count along it (steps,)."""


class Prompts(NamedTuple):
    """Which of a source's prompts are redrawn, and the seed that draws the same for every measure and source."""

    names: Sequence[str]
    seed: int


def magnitude_intervals(
    rows: Rows, logged: Logged, steps: Sequence[int], seed: int
) -> dict[int | str, dict[str, Intervals]]:
    """Every measure by benchmark, at every step and along the training (`training_mean`)."""
    drawn = _drawn(rows, logged, steps, Prompts(sorted(set(rows.prompts)), seed))
    found: dict[int | str, dict[str, Intervals]] = {
        step: {
            name: benchmark_intervals(rows.benchmarks, one.point[:, at], one.draws[:, at])
            for name, one in drawn.items()
        }
        for at, step in enumerate(steps)
    }
    found["training_mean"] = {
        name: benchmark_intervals(rows.benchmarks, *_training_mean(one)) for name, one in drawn.items()
    }
    return found


def magnitude_differences(
    pair: tuple[Rows, Rows], logged: tuple[Logged, Logged], steps: tuple[Sequence[int], Sequence[int]], seed: int
) -> dict[str, Intervals]:
    """First − second along training, on the prompts that both have; nothing where these are fewer than two.

    Measures of all samples together are missing where one source has further prompts.
    """
    common = sorted(set(pair[0].prompts) & set(pair[1].prompts))
    if len(common) < 2:
        return {}
    first, second = (
        {name: _training_mean(one) for name, one in _drawn(rows, known, at, Prompts(common, seed)).items()}
        for rows, known, at in zip(pair, logged, steps, strict=True)
    )
    return {
        name: benchmark_intervals(
            pair[0].benchmarks, *(own - other for own, other in zip(first[name], second[name], strict=True))
        )
        for name in first
        if name in second
    }


def _training_mean(one: Drawn) -> tuple[np.ndarray, np.ndarray]:
    return training_mean(one.point, one.shares), training_mean(one.draws, one.shares)


def _drawn(rows: Rows, logged: Logged, steps: Sequence[int], prompts: Prompts) -> dict[str, Drawn]:
    held = sorted(set(rows.prompts))
    found = {}
    for name, measure in measure_sums(rows).items():
        if measure.whole and len(prompts.names) < len(held):
            continue
        whole = _combined(measure, _summed(rows, measure, steps, held).sum(0, keepdims=True))
        factor = _factor(_known(logged, name, (steps, rows.benchmarks)), whole)
        sums = _summed(rows, measure, steps, prompts.names)
        point, draws = (
            _combined(measure, sums.sum(0, keepdims=True)),
            _combined(measure, _resampled_prompts(sums, prompts.seed)),
        )
        found[name] = Drawn(
            factor * point, factor * draws, shares_before(steps) if measure.before else shares_after(steps)
        )
    return found


def _known(logged: Logged, name: str, of: tuple[Sequence[int], Sequence[str]]) -> np.ndarray:
    """What was logged at each step of each benchmark (1, steps, benchmarks)."""
    steps, benchmarks = of
    alone = [logged[at].get(name, np.nan) for at in steps]
    return np.array(
        [[[logged[at].get(f"{b}/{name}", own) for b in benchmarks] for at, own in zip(steps, alone, strict=True)]]
    )


def _factor(known: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """What a benchmark knows of itself; 1 where no sample reinforces, and both are 0."""
    unknown = np.where((known == 0) & (whole == 0), 1.0, np.nan)
    return np.divide(known, whole, out=unknown, where=whole != 0)


def _summed(rows: Rows, measure: SumMeasure, steps: Sequence[int], prompts: Sequence[str]) -> np.ndarray:
    """Sums by prompt of numerators, then of denominators and of ones (prompts, steps, benchmarks + 2, probes)."""
    row, at = ({name: index for index, name in enumerate(names)} for names in (prompts, steps))
    kept = [index for index, prompt in enumerate(rows.prompts) if prompt in row]
    beside = np.stack([measure.denominator, np.ones(len(rows.tokens))], axis=1)[:, :, None]
    beside = np.broadcast_to(beside, (*beside.shape[:2], measure.numerator.shape[-1]))
    values = np.concatenate([measure.numerator, beside], axis=1)
    sums = np.zeros((len(prompts), len(steps), *values.shape[1:]))
    indices = ([row[rows.prompts[k]] for k in kept], [at[step] for step in rows.steps[kept].tolist()])
    np.add.at(sums, indices, values[kept])
    return sums


def _resampled_prompts(sums: np.ndarray, seed: int) -> np.ndarray:
    """Prompts redrawn; with them, independently, the probes of every step, if there are several of them.

    Of p probes p − 1 are drawn: of few things, as many as there are vary too little (Rao and Wu 1988).
    """
    prompts, *shape = sums.shape
    if prompts < 2:
        return np.full((RESAMPLES, *shape), np.nan)
    rng = np.random.default_rng(seed)
    drawn = prompts * resampled_means(sums.reshape(prompts, -1), rng, RESAMPLES).reshape(RESAMPLES, *shape)
    probes = shape[-1]
    if probes == 1:
        return drawn
    times = rng.multinomial(probes - 1, np.full(probes, 1 / probes), size=(RESAMPLES, shape[0]))
    return np.einsum("rsbp,rsp->rsb", drawn, times)[..., None]


def _combined(measure: SumMeasure, sums: np.ndarray) -> np.ndarray:
    """(…, steps, benchmarks + 2, probes) → (…, steps, benchmarks)."""
    total = sums.sum(-1)
    numerator = total[..., :-2]
    denominator, count = (np.broadcast_to(total[..., column, None], numerator.shape) for column in (-2, -1))
    return measure.combined(numerator, denominator, count)
