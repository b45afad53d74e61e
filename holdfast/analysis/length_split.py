"""Whether a model is right more often where it says more: its own shorter completions against its own longer ones.

That models which talk longer are better says nothing of it: between models and within a model, the two relations can
have opposite signs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from holdfast.analysis.bootstrap import ratio, resampled_means
from holdfast.analysis.records import Graded
from holdfast.analysis.sweep_estimates import Estimate, QuestionSet, mean_estimate, question_set
from holdfast.analysis.sweep_runs import Layout, Model


class LengthHalf(NamedTuple):
    """Of all models of a series together."""

    accuracy: float
    tokens: float


def length_split(layout: Layout, seed: int) -> list[dict[str, Any]]:
    """For every panel and series whose models differ in the length of their completions."""
    found = []
    for panel in layout.panels:
        for index, series in enumerate(layout.series):
            models = layout.models(series.arm, series.levels, panel)
            split = _split_models([layout.settings[model.setting].target(model.arm) for model in models], seed)
            if split:
                found.append({"panel": panel, "series": index, **split})
    return found


def longer_weights(tokens: np.ndarray) -> np.ndarray:
    """How much of each completion belongs to the longer half: all, nothing, or a share of those tied at its border.

    Half of the weight is always in the longer half, as if ties were broken at random very often.
    """
    above = tokens > (middle := np.sort(tokens)[len(tokens) // 2])
    tied = tokens == middle
    return above + tied * (len(tokens) / 2 - above.sum()) / tied.sum()


def _split_models(answers: Sequence[Sequence[Graded]], seed: int) -> dict[str, Any] | None:
    """None where every model always says the same number of tokens."""
    varied = [rows for rows in answers if len({row.tokens for row in rows}) > 1]
    groups: dict[QuestionSet, list[Sequence[Graded]]] = {}
    for rows in varied:
        groups.setdefault(question_set(rows), []).append(rows)
    if not groups:
        return None
    split = [_split(rows) for rows in varied]
    estimates = [_differences(group, [seed, number]) for number, group in enumerate(groups.values())]
    known = [estimate for group in estimates for estimate in group]
    return {
        "models": len(varied),
        "shorter": _mean([short for short, _ in split])._asdict(),
        "longer": _mean([long for _, long in split])._asdict(),
        "difference": mean_estimate(known).interval._asdict() if len(known) == len(varied) else None,
    }


def _split(rows: Sequence[Graded]) -> tuple[LengthHalf, LengthHalf]:
    tokens, right = _columns(rows)
    weight = longer_weights(tokens)
    return _half(tokens, right, 1 - weight), _half(tokens, right, weight)


def _half(tokens: np.ndarray, right: np.ndarray, weight: np.ndarray) -> LengthHalf:
    return LengthHalf(float(np.average(right, weights=weight)), float(np.average(tokens, weights=weight)))


def _mean(parts: Sequence[LengthHalf]) -> LengthHalf:
    return LengthHalf(*np.mean(np.array(parts), axis=0).tolist())


def _differences(answers: Sequence[Sequence[Graded]], seed: list[int]) -> list[Estimate]:
    """Longer − shorter of models that answered the same questions; none for a model of too few of them.

    Each model's halves are those of its real completions in every resample.
    """
    tables = []
    for rows in answers:
        tokens, right = _columns(rows)
        weight = longer_weights(tokens)
        tables += [right * weight, weight, right * (1 - weight), 1 - weight]
    values = np.array(tables).T
    draws, means = resampled_means(values, np.random.default_rng(seed)), values.mean(axis=0)
    found = []
    for start in range(0, values.shape[1], 4):
        long = ratio(draws[:, start], draws[:, start + 1])
        short = ratio(draws[:, start + 2], draws[:, start + 3])
        if long is not None and short is not None:
            value = means[start] / means[start + 1] - means[start + 2] / means[start + 3]
            found.append(Estimate(float(value), long - short))
    return found


def _columns(rows: Sequence[Graded]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([row.tokens for row in rows]), np.array([row.correct for row in rows], dtype=np.float64)


def mean_tokens(layout: Layout, model: Model) -> float:
    """Mean length of its completions of target questions."""
    return float(_columns(layout.settings[model.setting].target(model.arm))[0].mean())
