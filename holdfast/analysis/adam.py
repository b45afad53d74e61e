"""What Adam's step does to a benchmark, beside the plain gradient's: same samples, same resamples of prompts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from holdfast.analysis import dot_product
from holdfast.analysis.influence_rows import Rows
from holdfast.analysis.statistics import Interval
from holdfast.analysis.training_mean import MEAN, Found

KINDS = {"dot": "adam_dot", "exchange": "adam_exchange"}
"""What is told of both, by its plain name."""
PLACES = ("last", "along")
"""Where the two are laid side by side: the last checkpoint from which something was learned, and along training."""


class Signs(NamedTuple):
    """Pairs of a source and a prior benchmark that have a dot of both kinds."""

    compared: int
    differ: int
    """Pairs whose two dots have opposite signs, and with them the two rates, where there are any."""
    sure: int
    """Of these, pairs in which neither interval holds 0."""


def intervals(rows: Rows, steps: Sequence[int], seed: int) -> dict[int | str, dict[str, Found]]:
    """`adam_dot` and `adam_exchange` by benchmark, at every step and along the training, each None where unknown."""
    found = dot_product.intervals(rows._replace(pulls=rows.adam), steps, seed)
    return {place: {own: one[plain] for plain, own in KINDS.items()} for place, one in found.items()}


def beside(rows: Rows, steps: Sequence[int], seed: int) -> dict[str, Any] | None:
    """Both kinds at the same checkpoints (`last`, `along`), and the step of the last one; None without Adam.

    Along training, the plain kind too lacks the stretch that began where Adam's moments are not known, so that the two
    differ in nothing but the step.
    """
    if not np.isfinite(rows.adam).any():
        return None
    known = np.isfinite(rows.adam)
    plain = dot_product.intervals(rows._replace(pulls=np.where(known, rows.pulls, np.nan)), steps, seed)
    own, step = intervals(rows, steps, seed), last_learned(rows, steps)
    places: dict[str, int | str] = dict(zip(PLACES, (step, "along"), strict=True))
    return {"step": step} | {
        name: {kind: plain[place][kind] for kind in KINDS} | own[place] for name, place in places.items()
    }


def last_learned(rows: Rows, steps: Sequence[int]) -> int:
    """The last checkpoint from which something was learned: the final one never is, nor one without advantages."""
    idle = set(rows.idle())
    return max((step for step in steps[:-1] if step not in idle), default=steps[0])


def signs(traces: Iterable[Mapping[str, Any]]) -> dict[str, Signs]:
    """By place, over the prior benchmarks of all sources that have Adam's dots beside the plain ones."""
    found = [trace["adam"] for trace in traces if trace["adam"]]
    return {place: _signs([one[place] for one in found]) for place in PLACES}


def _signs(found: Iterable[Mapping[str, Found]]) -> Signs:
    pairs = [
        (plain, own)
        for one in found
        for name in one["exchange"]
        if name != MEAN and (plain := one["dot"][name]) and (own := one["adam_dot"][name])
    ]
    differ = [pair for pair in pairs if pair[0].value * pair[1].value < 0]
    return Signs(len(pairs), len(differ), sum(all(map(_sided, pair)) for pair in differ))


def _sided(given: Interval) -> bool:
    return given.low > 0 or given.high < 0
