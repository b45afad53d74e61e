"""What the measures of a source are made of: sums over its samples, which can be redrawn.

Names are those of `holdfast.influence.measures`, which has the formulas.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from holdfast.analysis.bootstrap import divided
from holdfast.analysis.influence_rows import Rows

Combined = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def _ratio(numerator: np.ndarray, denominator: np.ndarray, count: np.ndarray) -> np.ndarray:
    return divided(numerator, denominator)


class SumMeasure(NamedTuple):
    """A measure as a function of three sums over samples: of numerators, of denominators, and of `ones`."""

    numerator: np.ndarray
    """(rows, benchmarks, probes); probes are 1 where none are drawn."""
    denominator: np.ndarray
    """(rows,)."""
    combined: Combined = _ratio
    """Of sums that are shaped alike."""
    whole: bool = False
    """Of all samples together: what a part of them would have is not known."""
    before: bool = False
    """Of the steps that led to a checkpoint, and not of those that begin there."""


def measure_sums(rows: Rows) -> dict[str, SumMeasure]:
    """By measure; those for which nothing was kept are missing."""
    return _norms(rows) | _perplexities(rows) | _directions(rows) | _lbk(rows) | _reference_lbk(rows) | _kernels(rows)


def _same_for_all(values: np.ndarray, rows: Rows) -> np.ndarray:
    """The same for all benchmarks."""
    return np.repeat(values[:, None, None], len(rows.benchmarks), axis=1)


def _norms(rows: Rows) -> dict[str, SumMeasure]:
    lengths, ones = np.sqrt(rows.norms2), np.ones(len(rows.tokens))
    return {
        "norm": SumMeasure(_same_for_all(lengths, rows), ones),
        "norm_per_token": SumMeasure(_same_for_all(lengths / rows.tokens, rows), ones),
    }


def _perplexities(rows: Rows) -> dict[str, SumMeasure]:
    """exp of a mean: under the checkpoint, and under the model that the stage began with."""
    found = {}
    for name, loglik in (("perplexity", rows.loglik), ("perplexity_start", rows.loglik_start)):
        known = np.isfinite(loglik)
        if known.any():
            numerator, tokens = np.where(known, -loglik, 0.0), np.where(known, rows.tokens, 0.0)
            found[name] = SumMeasure(_same_for_all(numerator, rows), tokens, _exponential)
    return found


def _directions(rows: Rows) -> dict[str, SumMeasure]:
    """Dot product per sample, shares of samples that count and that reinforce, and what takes the length of their sum.

    A resample's sum is taken along the whole sum's direction, where its length ‖G‖ is exact to first order. The part
    across it is left out, and with it the length that samples drawn twice would add.
    """
    moving = rows.weights != 0
    found = {
        "dot_sample": SumMeasure(rows.weighted_dots[:, :, None], np.ones(len(moving))),
        "weighted": SumMeasure(_same_for_all(moving.astype(float), rows), np.ones(len(moving))),
        "positive": SumMeasure(
            (moving[:, None] & (rows.weighted_dots > 0))[:, :, None].astype(float), moving.astype(float)
        ),
    }
    if np.isfinite(rows.in_sum).any():
        length = np.where(np.isfinite(rows.in_sum), rows.in_sum, 0.0)
        for name in ("cosine", "cosine_debiased"):
            found[name] = SumMeasure(rows.weighted_dots[:, :, None], length, whole=True)
        squares = _same_for_all(rows.weights**2 * rows.norms2, rows)
        found["coherence"] = SumMeasure(squares, length, _coherence, whole=True)
    return found


def _lbk(rows: Rows) -> dict[str, SumMeasure]:
    """LBK, of the samples of which the model is not sure."""
    unsure = rows.certainty > 0
    if not unsure.any():
        return {}
    explained = divided(rows.dots**2, np.broadcast_to(rows.certainty[:, None], rows.dots.shape))
    explained = np.where(unsure[:, None], explained, 0.0)
    scales = {"lbk": rows.tokens, "lbk_per_token": rows.tokens**2}
    return {
        name: SumMeasure((explained / by[:, None])[:, :, None], unsure.astype(float)) for name, by in scales.items()
    }


def _reference_lbk(rows: Rows) -> dict[str, SumMeasure]:
    """LBK as the reference code computes it, which knows of the samples only how far they are from certain."""
    known = np.isfinite(rows.error)
    if not known.any():
        return {}
    return {
        "lbk_reference": SumMeasure(
            _same_for_all(known.astype(float), rows), np.where(known, rows.error, 0.0), before=True
        )
    }


def _kernels(rows: Rows) -> dict[str, SumMeasure]:
    if not rows.kernels2.shape[-1]:
        return {}
    scales = {"kernel": np.ones(len(rows.tokens)), "kernel_per_token": rows.tokens}
    return {name: SumMeasure(rows.kernels2, by, _root) for name, by in scales.items()}


def _root(numerator: np.ndarray, denominator: np.ndarray, count: np.ndarray) -> np.ndarray:
    return divided(numerator, denominator) ** 0.5


def _exponential(numerator: np.ndarray, denominator: np.ndarray, count: np.ndarray) -> np.ndarray:
    return np.exp(divided(numerator, denominator))


def _coherence(squares: np.ndarray, length: np.ndarray, count: np.ndarray) -> np.ndarray:
    """(‖Σx‖² − Σ‖x‖²) / ((N − 1) Σ‖x‖²)."""
    return divided(np.maximum(length, 0.0) ** 2 - squares, (count - 1) * squares)
