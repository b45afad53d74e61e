"""What is kept at the same skill: a learning rate or a number of steps buys skill with knowledge.

Arms are compared where their mean trajectories first reach the same score, interpolated between evaluated checkpoints.
The score there is measured, too: by the delta method, a replicate that is more skilled by δ has its retention corrected
by δ times the slope of the trajectory.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from holdfast.analysis.estimates import Moments, weighted


class Point(NamedTuple):
    """A checkpoint of a mean trajectory, the base first."""

    step: int
    score: Moments
    retention: Moments

    @property
    def skill(self) -> float:
        """Mean score."""
        return float(self.score.means.mean())

    @property
    def kept(self) -> float:
        """Mean retention."""
        return float(self.retention.means.mean())


class Reached(NamedTuple):
    """Where a trajectory first has a score."""

    step: float
    retention: Moments


def common_score(trajectories: Sequence[Sequence[Point]]) -> float | None:
    """The highest score, rounded down to two decimals, that all reach; None if that is no more than their bases'."""
    common = rounded_down(min(max(point.skill for point in points) for points in trajectories))
    return common if all(common > points[0].skill for points in trajectories) else None


def rounded_down(score: float) -> float:
    """To two decimals. A mean that should be 0.85 may be a hair below it, and is then left as it is."""
    return min(score, float(np.floor(score * 100 + 1e-9) / 100))


def at_score(points: Sequence[Point], score: float) -> Reached | None:
    """Retention where a trajectory first reaches a score above its base's; None if it never does."""
    for before, after in pairwise(points):
        if before.skill < score <= after.skill:
            rise = after.skill - before.skill
            share, slope = (score - before.skill) / rise, (after.kept - before.kept) / rise
            retention = [(share, after.retention), (1 - share, before.retention)]
            skill = [(-slope * share, after.score), (-slope * (1 - share), before.score)]
            found = weighted(retention + skill)
            moved = found._replace(means=found.means + slope * score)
            return Reached(before.step + share * (after.step - before.step), moved)
    return None


def on_front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Of scores and retentions, those for which no other is better in one and at least as good in the other."""

    def worse(one: tuple[float, float]) -> bool:
        return any(other != one and other[0] >= one[0] and other[1] >= one[1] for other in points)

    return [not worse(one) for one in points]
