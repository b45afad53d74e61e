"""Differences between models of a sweep, in every panel, and how they differ between two panels.

What is compared follows from the factors alone, never from the results: both levels of every factor that has two, and
every pair of arms.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, product
from typing import Any, NamedTuple

from holdfast.analysis.sweep_estimates import Estimate, Measured, mean_estimate, question_set
from holdfast.analysis.sweep_runs import Layout, Model, level

MEASURES = ("accuracy", "prior")
NAMED_ARMS = 3
"""More are not named one by one."""
Pair = tuple[Model, Model]


class ContrastRow(NamedTuple):
    """A row: what is subtracted from what, by panel, in every setting where both sides are."""

    name: str
    within: str
    """An arm, or levels, that both sides share."""
    pairs: dict[str, list[Pair]]
    factor: str = ""
    """Whose levels are compared; empty where arms are."""


def contrast_rows(layout: Layout) -> list[ContrastRow]:
    """All rows: two-level factors first, then pairs of arms."""
    rows = [row for factor in two_level(layout) for row in _levels(layout, factor)]
    return [row for row in [*rows, *_arms(layout)] if any(row.pairs.values())]


def two_level(layout: Layout) -> list[str]:
    """Factors with exactly two levels. Panels stand side by side as it is, and no seed is compared with another."""
    left_out = (layout.roles.panel, *layout.roles.repeats)
    return [factor for factor, levels in layout.factors.items() if len(levels) == 2 and factor not in left_out]


def _levels(layout: Layout, factor: str) -> list[ContrastRow]:
    """First level − second, for all arms together and for each."""
    first, second = layout.factors[factor]
    matches = [
        (a, b)
        for a, b in product(range(len(layout.settings)), repeat=2)
        if layout.settings[a].levels == layout.settings[b].levels | {factor: first}
        and layout.settings[b].levels[factor] == second
    ]
    name = f"{factor}: {first} − {second}"
    alone = {
        arm: [(Model(a, arm), Model(b, arm)) for a, b in matches if _have(layout, arm, a, b)] for arm in layout.arms
    }
    both = [arm for arm, pairs in alone.items() if pairs]
    rows = [ContrastRow(name, arm, _by_panel(layout, alone[arm]), factor) for arm in both]
    every = _by_panel(layout, [pair for arm in both for pair in alone[arm]])
    within = " and ".join(both) if len(both) <= NAMED_ARMS else f"all {len(both)} arms"
    together = ContrastRow(name, within, every, factor)
    return [together, *rows] if len(both) > 1 else rows


def _have(layout: Layout, arm: str, *settings: int) -> bool:
    return all(arm in layout.settings[setting].arms for setting in settings)


def _arms(layout: Layout) -> list[ContrastRow]:
    """First arm − second, within every combination of levels of the two-level factors."""
    factors = two_level(layout)
    rows = []
    for levels in product(*(layout.factors[factor] for factor in factors)):
        indices = [
            index
            for index, setting in enumerate(layout.settings)
            if tuple(setting.levels[factor] for factor in factors) == levels
        ]
        within = ", ".join(f"{factor} {name}" for factor, name in zip(factors, levels, strict=True))
        for first, second in combinations(layout.arms, 2):
            pairs = [
                (Model(p, first), Model(p, second))
                for p in indices
                if _have(layout, first, p) and _have(layout, second, p)
            ]
            rows.append(ContrastRow(f"{first} − {second}", within, _by_panel(layout, pairs)))
    return rows


def _by_panel(layout: Layout, pairs: Sequence[Pair]) -> dict[str, list[Pair]]:
    return {
        panel: [pair for pair in pairs if level(layout.settings[pair[0].setting], layout.roles.panel) == panel]
        for panel in layout.panels
    }


def contrasts(layout: Layout, measured: dict[Model, Measured]) -> dict[str, Any]:
    """The rows with their intervals, and how many intervals leave out zero."""
    rows = [_row(layout, row, measured) for row in contrast_rows(layout)]
    shown = {name: [found for row in rows for found in known_intervals(row[name])] for name in MEASURES}
    return {
        "rows": rows,
        "shown": {name: len(found) for name, found in shown.items()},
        "apart": {name: sum(apart(one) for one in found) for name, found in shown.items()},
    }


def known_intervals(differences: dict[str, Any]) -> list[dict[str, float]]:
    """All intervals of a row that are known."""
    return [found for found in (*differences["panels"].values(), differences["between"]) if found]


def apart(found: dict[str, Any]) -> bool:
    """Whether the interval leaves out zero."""
    return bool(found["low"] > 0 or found["high"] < 0)


def _row(layout: Layout, row: ContrastRow, measured: dict[Model, Measured]) -> dict[str, Any]:
    found: dict[str, Any] = {"name": row.name, "within": row.within, "factor": row.factor}
    found["settings"] = {panel: len(pairs) for panel, pairs in row.pairs.items()}
    found["paired"] = all(_same_questions(layout, pair) for pairs in row.pairs.values() for pair in pairs)
    return found | {name: _differences(row, measured, name) for name in MEASURES}


def _differences(row: ContrastRow, measured: dict[Model, Measured], name: str) -> dict[str, Any]:
    """By panel; under `between`, where there are two panels, the first panel's difference − the second's."""
    found = {
        panel: mean_difference([(getattr(measured[a], name), getattr(measured[b], name)) for a, b in pairs])
        for panel, pairs in row.pairs.items()
    }
    known = [estimate for estimate in found.values() if estimate]
    between = known[0].minus(known[1]).interval._asdict() if len(found) == len(known) == 2 else None
    panels = {panel: estimate.interval._asdict() if estimate else None for panel, estimate in found.items()}
    return {"panels": panels, "between": between}


def mean_difference(pairs: Sequence[tuple[Estimate, Estimate]]) -> Estimate | None:
    """Mean of first − second over pairs; None without any."""
    return mean_estimate([first.minus(second) for first, second in pairs]) if pairs else None


def _same_questions(layout: Layout, pair: Pair) -> bool:
    first, second = (question_set(layout.settings[model.setting].target(model.arm)) for model in pair)
    return first == second
