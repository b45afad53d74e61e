"""Two summaries of the same study, metric by metric: is what came out again within what was recorded?"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

BASE = "base"
TOLERANCE = 2e-6
"""Summaries have six significant digits."""


class Difference(NamedTuple):
    """A metric of an arm, or of the base, at the end of training."""

    arm: str
    metric: str
    recorded: float | None
    low: float | None
    high: float | None
    """The 95 % interval that was recorded; None where there is none."""
    again: float | None

    @property
    def within(self) -> bool:
        """Whether the new value lies in the recorded interval; where there is none, whether it is the same."""
        if self.recorded is None or self.again is None:
            return self.recorded is self.again
        low, high = (self.recorded if bound is None else bound for bound in (self.low, self.high))
        slack = TOLERANCE * max(abs(low), abs(high))
        return low - slack <= self.again <= high + slack

    @property
    def difference(self) -> float:
        """New minus recorded; NaN where one of them is missing."""
        if self.recorded is None or self.again is None:
            return math.nan
        return self.again - self.recorded


def differences(recorded: dict[str, Any], again: dict[str, Any]) -> list[Difference]:
    """Every metric of two contents of summary.json, the base first; a metric that one of them lacks counts, too."""
    found = _of(BASE, recorded.get("base", {}), again.get("base", {}))
    arms = [*recorded.get("arms", {}), *(arm for arm in again.get("arms", {}) if arm not in recorded.get("arms", {}))]
    for arm in arms:
        found += _of(arm, recorded["arms"].get(arm, {}), again.get("arms", {}).get(arm, {}))
    return found


def _of(arm: str, recorded: dict[str, Any], again: dict[str, Any]) -> list[Difference]:
    before, after = recorded.get("metrics", {}), again.get("metrics", {})
    intervals = recorded.get("intervals", {})
    return [
        Difference(
            arm,
            name,
            before.get(name),
            intervals.get(name, {}).get("low"),
            intervals.get(name, {}).get("high"),
            after.get(name),
        )
        for name in sorted(before.keys() | after.keys())
    ]
