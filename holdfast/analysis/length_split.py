"""Whether a model is right more often where it says more: its own shorter completions against its own longer ones.

That models which talk longer are better says nothing of it: between models and within a model, the two relations can
have opposite signs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from holdfast.analysis.answers import Answers
from holdfast.analysis.contrasts import Setting
from holdfast.analysis.estimates import Moments, estimate


def length_split(setting: Setting, arm: str) -> Iterator[dict[str, Any]]:
    """A row of `Analysis.length_split`; none where an arm's completions are all of one length."""

    def target(draw: Answers, field: str) -> np.ndarray:
        """(replicates, target questions)."""
        return draw.values(draw.ends[arm], field)[:, draw.strata == 0]

    if any((np.ptp(target(draw, "tokens"), axis=1) == 0).any() for draw in setting.having(arm)):
        return
    found = setting.pooled(lambda draw: split_halves(target(draw, "tokens"), target(draw, "correct")), arm)
    whole = estimate(found.pop("difference"))
    yield (
        {"setting": setting.name, "arm": arm}
        | {name: float(half.means.mean()) for name, half in found.items()}
        | {"difference": whole.value, "difference_low": whole.low, "difference_high": whole.high}
    )


def split_halves(tokens: np.ndarray, right: np.ndarray) -> dict[str, Moments]:
    """shorter, longer, their tokens, and difference, of lengths and verdicts (replicates, questions)."""
    weights = np.stack([longer_weights(row) for row in tokens])
    count = tokens.shape[1]
    nothing = np.zeros((len(tokens), 0))
    found, parts = {}, 0.0
    for name, weight, sign in (("shorter", 1 - weights, -1), ("longer", weights, 1)):
        total = weight.sum(1, keepdims=True)
        share = (weight * right).sum(1, keepdims=True) / total
        found[name] = Moments(share[:, 0], nothing, count)
        found[f"{name}_tokens"] = Moments((weight * tokens).sum(1) / total[:, 0], nothing, count)
        parts = parts + sign * weight * (right - share) / total * np.sqrt(count / (count - 1))
    found["difference"] = Moments(found["longer"].means - found["shorter"].means, np.asarray(parts), count)
    return found


def longer_weights(tokens: np.ndarray) -> np.ndarray:
    """How much of each completion belongs to the longer half: all, nothing, or a share of those tied at its border.

    Half of the weight is always in the longer half, as if ties were broken at random very often.
    """
    above = tokens > (middle := np.sort(tokens)[len(tokens) // 2])
    tied = tokens == middle
    return above + tied * (len(tokens) / 2 - above.sum()) / tied.sum()
