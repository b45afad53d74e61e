"""How sure the magnitudes of a source are: norms of gradients, LBK, and the norm of the eNTK.

All are means over samples, whose values influence keeps, times a factor that only the benchmark knows (its tokens, its
‖A‖). What was logged is the value; a bootstrap over prompts, as that of pulls, says in what proportion it varies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from holdfast.comparison.along import Found, along, named, over, shares
from holdfast.comparison.influence_rows import Rows
from holdfast.comparison.pull import RESAMPLES
from holdfast.comparison.statistics import resampled_means

Logged = Mapping[int, Mapping[str, float]]
"""By step: `BENCHMARK/MEASURE`."""


class Part(NamedTuple):
    """A measure as (Σ numerator / Σ denominator)^power over samples."""

    numerator: np.ndarray
    """(rows, benchmarks, probes); probes are 1 where none are drawn."""
    denominator: np.ndarray
    """(rows,)."""
    power: float


class Drawn(NamedTuple):
    """A measure at all steps: of the prompts themselves, and of every resample of them."""

    point: np.ndarray
    """(1, steps, benchmarks)."""
    draws: np.ndarray
    """(resamples, steps, benchmarks)."""


def parts(rows: Rows) -> dict[str, Part]:
    """By measure; those for which nothing was kept are missing."""
    lengths, ones = np.sqrt(rows.norms2), np.ones(len(rows.tokens))
    found = {
        "norm": Part(_alike(lengths, rows), ones, 1.0),
        "norm_per_token": Part(_alike(lengths / rows.tokens, rows), ones, 1.0),
    }
    unsure = rows.certainty > 0
    if unsure.any():
        explained = over(rows.dots**2, np.broadcast_to(rows.certainty[:, None], rows.dots.shape))
        explained = np.where(unsure[:, None], explained, 0.0)
        for name, scale in (("lbk", ones), ("lbk_per_token", rows.tokens**2)):
            found[name] = Part((explained / scale[:, None])[:, :, None], unsure.astype(float), 1.0)
    if rows.kernels2.shape[-1]:
        for name, counted in (("kernel", ones), ("kernel_per_token", rows.tokens)):
            found[name] = Part(rows.kernels2, counted, 0.5)
    return found


def intervals(rows: Rows, logged: Logged, steps: Sequence[int], seed: int) -> dict[int | str, dict[str, Found]]:
    """Every magnitude by benchmark, at every step and along the training (`along`)."""
    drawn = _drawn(rows, logged, steps, (sorted(set(rows.prompts)), seed))
    found: dict[int | str, dict[str, Found]] = {
        step: {name: named(rows.benchmarks, one.point[:, at], one.draws[:, at]) for name, one in drawn.items()}
        for at, step in enumerate(steps)
    }
    found["along"] = {name: named(rows.benchmarks, *_along(one, steps)) for name, one in drawn.items()}
    return found


def differences(
    pair: tuple[Rows, Rows], logged: tuple[Logged, Logged], steps: tuple[Sequence[int], Sequence[int]], seed: int
) -> dict[str, Found]:
    """First − second along training, on the prompts that both have; nothing where these are fewer than two."""
    common = sorted(set(pair[0].prompts) & set(pair[1].prompts))
    if len(common) < 2:
        return {}
    first, second = (
        {name: _along(one, at) for name, one in _drawn(rows, known, at, (common, seed)).items()}
        for rows, known, at in zip(pair, logged, steps, strict=True)
    )
    return {
        name: named(pair[0].benchmarks, *(own - other for own, other in zip(first[name], second[name], strict=True)))
        for name in first
        if name in second
    }


def _alike(values: np.ndarray, rows: Rows) -> np.ndarray:
    """The same for all benchmarks."""
    return np.repeat(values[:, None, None], len(rows.benchmarks), axis=1)


def _along(one: Drawn, steps: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    return along(one.point, shares(steps)), along(one.draws, shares(steps))


def _drawn(rows: Rows, logged: Logged, steps: Sequence[int], redrawn: tuple[Sequence[str], int]) -> dict[str, Drawn]:
    """By measure, of some prompts; one seed draws the same prompts for every measure and source."""
    prompts, seed = redrawn
    found = {}
    for name, part in parts(rows).items():
        known = np.array([[logged[at].get(f"{b}/{name}", np.nan) for b in rows.benchmarks] for at in steps])
        whole = _ratio(_summed(rows, part, steps, None).sum(0, keepdims=True), part.power)
        sums = _summed(rows, part, steps, prompts)
        factor = over(known[None], whole)
        point = _ratio(sums.sum(0, keepdims=True), part.power)
        found[name] = Drawn(factor * point, factor * _ratio(_redrawn(sums, seed), part.power))
    return found


def _summed(rows: Rows, part: Part, steps: Sequence[int], prompts: Sequence[str] | None) -> np.ndarray:
    """Sums by prompt of numerators and, last, of the denominator (prompts, steps, benchmarks + 1, probes)."""
    held = prompts if prompts is not None else sorted(set(rows.prompts))
    row, at = ({name: place for place, name in enumerate(names)} for names in (held, steps))
    kept = [place for place, prompt in enumerate(rows.prompts) if prompt in row]
    counted = np.broadcast_to(part.denominator[:, None, None], (len(rows.tokens), 1, part.numerator.shape[-1]))
    values = np.concatenate([part.numerator, counted], axis=1)
    sums = np.zeros((len(held), len(steps), *values.shape[1:]))
    place = ([row[rows.prompts[k]] for k in kept], [at[step] for step in rows.steps[kept].tolist()])
    np.add.at(sums, place, values[kept])
    return sums


def _redrawn(sums: np.ndarray, seed: int) -> np.ndarray:
    """Prompts redrawn; with them, independently, the probes of every step, if there are several of them."""
    prompts, *shape = sums.shape
    if prompts < 2:
        return np.full((RESAMPLES, *shape), np.nan)
    rng = np.random.default_rng(seed)
    drawn = resampled_means(sums.reshape(prompts, -1), rng, RESAMPLES).reshape(RESAMPLES, *shape)
    probes = shape[-1]
    if probes == 1:
        return drawn
    times = rng.multinomial(probes, np.full(probes, 1 / probes), size=(RESAMPLES, shape[0]))
    return np.einsum("rsbp,rsp->rsb", drawn, times)[..., None]


def _ratio(sums: np.ndarray, power: float) -> np.ndarray:
    """(…, steps, benchmarks + 1, probes) → (…, steps, benchmarks)."""
    total = sums.sum(-1)
    return over(total[..., :-1], np.broadcast_to(total[..., -1:], total[..., :-1].shape)) ** power
