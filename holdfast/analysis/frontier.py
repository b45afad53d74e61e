"""Skill against retention: which checkpoints are beaten by no other, and what is kept at the same skill.

A learning rate or a number of steps buys skill with knowledge, so arms are compared where they are equally skilled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple


class Place(NamedTuple):
    """A checkpoint on the frontier plot."""

    arm: str
    step: int
    score: float
    retention: float
    forgetting: float


class Matched(NamedTuple):
    """What an arm has kept when it first reaches a score; between two evaluations by linear interpolation."""

    step: float
    score: float
    retention: float
    forgetting: float


def pareto(places: Sequence[Place]) -> list[Place]:
    """The places for which no other is better in score or retention and at least as good in both, by score."""
    front: list[Place] = []
    for place in sorted(places, key=lambda p: (-p.score, -p.retention)):
        if not front or place.retention > front[-1].retention or place[2:4] == front[-1][2:4]:
            front.append(place)
    return front[::-1]


def at_score(trajectory: Sequence[Place], score: float) -> Matched | None:
    """Where a trajectory, in order of steps, first reaches `score`; None if it never does (no extrapolation)."""
    first = trajectory[0]
    if first.score >= score:
        return Matched(*first[1:])
    for before, after in pairwise(trajectory):
        if after.score >= score:
            share = (score - before.score) / (after.score - before.score)
            numbers = zip(before[1:], after[1:], strict=True)
            return Matched(*(old + share * (new - old) for old, new in numbers))
    return None


def common_score(trajectories: Sequence[Sequence[Place]]) -> float | None:
    """The highest score, rounded down to two decimals, that all arms reach; None if that is no more than the base's."""
    best = min(max(place.score for place in trajectory) for trajectory in trajectories)
    # A mean that should be 0.85 may be a hair below it, and rounding down must not then round up.
    common = min(best, math.floor(best * 100 + 1e-9) / 100)
    return common if common > trajectories[0][0].score else None


def matched_scores(trajectories: Sequence[Sequence[Place]]) -> list[float]:
    """Scores to compare at: the common one, if there is one, and the tenths above it that some arm reaches."""
    common = common_score(trajectories)
    best = max(place.score for trajectory in trajectories for place in trajectory)
    above = trajectories[0][0].score if common is None else common + 0.04
    tenths = [tenth / 10 for tenth in range(1, 11) if above < tenth / 10 <= best + 1e-9]
    return ([] if common is None else [common]) + tenths
