"""How two sources differ in what is made of their pulls, on the prompts that both have: redrawn together.

The plain pull itself has tests as well, in `holdfast/analysis/dot_product.py`; what is no pull is in
`holdfast/analysis/magnitudes.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from holdfast.analysis.dot_product import RESAMPLES, pull
from holdfast.analysis.influence_rows import Logged, Rows
from holdfast.analysis.tracin import stride_of, summed
from holdfast.analysis.training_mean import Found, named


def differences(
    pair: tuple[Rows, Rows], logged: tuple[Logged, Logged], steps: tuple[Sequence[int], Sequence[int]], seed: int
) -> dict[str, Found]:
    """First − second along training: `mean_cosine`, `adam_dot`, and `exchange` and `tracin` of both kinds of step.

    Nothing where the common prompts are fewer than two. An exchange rate is missing where either source has a
    resample that does not pull toward the skill.
    """
    common = sorted(set(pair[0].prompts) & set(pair[1].prompts))
    if len(common) < 2:
        return {}
    first, second = (
        dict(_drawn(rows, (at, stride_of(known, at)), common, seed))
        for rows, known, at in zip(pair, logged, steps, strict=True)
    )
    return {
        name: named(pair[0].benchmarks, *(own - other for own, other in zip(first[name], second[name], strict=True)))
        for name in first
    }


def _drawn(
    rows: Rows, ways: tuple[Sequence[int], np.ndarray], prompts: Sequence[str], seed: int
) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray]]]:
    """`ways` are the steps and the stride from each."""
    steps, strides = ways
    for kind, pulls in (("", rows.pulls), ("adam_", rows.adam)):
        own = rows._replace(pulls=pulls)
        # The same seed draws the same prompts for every source and measure.
        drawn = np.random.default_rng(seed)
        both = pull(own, steps, 1, None, prompts), pull(own, steps, RESAMPLES, drawn, prompts)
        (dot, cosine), (dots, cosines) = (one.at(len(steps)) for one in both)
        if kind:
            yield "adam_dot", (dot, dots)
        else:
            yield "mean_cosine", (cosine, cosines)
        yield f"{kind}exchange", _rates(dot, dots)
        yield f"{kind}tracin", (summed(both[0], strides), summed(both[1], strides))


def _rates(point: np.ndarray, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Forgetting per unit of skill of the prior benchmarks; none where some pull on the target is not positive."""
    known = (point[:, 0] > 0).all() and (draws[:, 0] > 0).all()
    rates = [np.full_like(one, np.nan) for one in (point, draws)]
    for rate, one in zip(rates, (point, draws), strict=True):
        if known:
            rate[:, 1:] = -one[:, 1:] / one[:, :1]
    return rates[0], rates[1]
