"""Pulls summed along training with the learning rate (TracInCP; Pruthi et al. 2020), and how sure these sums are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from holdfast.analysis.dot_product import RESAMPLES, Pull, pull
from holdfast.analysis.influence_rows import Logged, Rows
from holdfast.analysis.training_mean import Found, named


def sums(rows: Rows, logged: Logged, steps: Sequence[int], seed: int) -> dict[str, Found]:
    """`tracin` and `adam_tracin` by benchmark.

    A run that kept no `stride` (rate × steps to the next checkpoint) has the sums that it logged, without bounds.
    """
    found, last = {}, logged[steps[-1]]
    for name, pulls in (("tracin", rows.pulls), ("adam_tracin", rows.adam)):
        own = rows._replace(pulls=pulls)
        strides = stride_of(logged, steps)
        draws = summed(pull(own, steps, RESAMPLES, np.random.default_rng(seed)), strides)
        value = np.array([[last.get(f"{benchmark}/{name}", np.nan) for benchmark in rows.benchmarks]])
        found[name] = named(rows.benchmarks, value, draws)
    return found


def stride_of(logged: Logged, steps: Sequence[int]) -> np.ndarray:
    """Learning rate × steps from each checkpoint to the next; not a number where it was not kept (steps,)."""
    return np.array([logged[step].get("stride", np.nan) for step in steps])


def summed(pulls: Pull, strides: np.ndarray) -> np.ndarray:
    """Σ stride × dot over the checkpoints at which both are known (resamples, benchmarks)."""
    terms = pulls.dot * strides[None, :, None]
    known = np.isfinite(terms)
    return np.where(known.any(1), np.where(known, terms, 0.0).sum(1), np.nan)
