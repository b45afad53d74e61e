"""What was forgotten: question by question, and how much at the same skill.

By benchmark: forgetting = lost, unreadable + lost, wrong − gained, exactly. A learning rate or a number of steps buys
skill with knowledge, so arms are compared where they are equally skilled: on the frontier of checkpoints that no other
beats, and at scores that all arms reach.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from holdfast.analysis.records import Graded


class ForgettingCounts(NamedTuple):
    """Counts of the questions of one benchmark."""

    questions: int
    known: int
    """The base was right."""
    unparsed: int
    """The base was right, and now no answer can be read."""
    wrong: int
    """The base was right, and now the answer is another."""
    gained: int
    """The base was not right, and now it is."""

    @property
    def forgetting(self) -> float:
        return (self.unparsed + self.wrong - self.gained) / self.questions


class Flip(NamedTuple):
    """A question that the base answered right and a trained model does not."""

    before: Graded
    after: Graded


def paired_answers(base: Sequence[Graded], now: Sequence[Graded]) -> list[tuple[Graded, Graded]]:
    """The same question before and after; both evaluations must have asked the same ones."""
    after = {row.key: row for row in now}
    if after.keys() != {row.key for row in base}:
        raise ValueError("two evaluations asked different questions and cannot be paired")
    return [(row, after[row.key]) for row in base]


def count_forgotten(base: Sequence[Graded], now: Sequence[Graded]) -> dict[str, ForgettingCounts]:
    """One entry a prior benchmark."""
    counts: dict[str, list[int]] = {}
    for before, after in paired_answers(base, now):
        if before.role != "prior":
            continue
        entry = counts.setdefault(before.benchmark, [0, 0, 0, 0, 0])
        lost = before.correct and not after.correct
        facts = (True, before.correct, lost and after.parsed is None, lost and after.parsed is not None)
        for index, fact in enumerate((*facts, after.correct and not before.correct)):
            entry[index] += fact
    return {benchmark: ForgettingCounts(*entry) for benchmark, entry in counts.items()}


def flips(base: Sequence[Graded], now: Sequence[Graded]) -> list[Flip]:
    """Prior questions that went from right to not right."""
    return [
        Flip(before, after)
        for before, after in paired_answers(base, now)
        if before.role == "prior" and before.correct and not after.correct
    ]


class FrontierPoint(NamedTuple):
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


def pareto(points: Sequence[FrontierPoint]) -> list[FrontierPoint]:
    """The points for which no other is better in score or retention and at least as good in both, by score."""
    front: list[FrontierPoint] = []
    for point in sorted(points, key=lambda p: (-p.score, -p.retention)):
        if not front or point.retention > front[-1].retention or point[2:4] == front[-1][2:4]:
            front.append(point)
    return front[::-1]


def at_score(trajectory: Sequence[FrontierPoint], score: float) -> Matched | None:
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


def common_score(trajectories: Sequence[Sequence[FrontierPoint]]) -> float | None:
    """The highest score, rounded down to two decimals, that all arms reach; None if that is no more than the base's."""
    best = min(max(point.score for point in trajectory) for trajectory in trajectories)
    # A mean that should be 0.85 may be a hair below it, and rounding down must not then round up.
    common = min(best, math.floor(best * 100 + 1e-9) / 100)
    return common if common > trajectories[0][0].score else None


def matched_scores(trajectories: Sequence[Sequence[FrontierPoint]]) -> list[float]:
    """Scores to compare at: the common one, if there is one, and the tenths above it that some arm reaches."""
    common = common_score(trajectories)
    best = max(point.score for trajectory in trajectories for point in trajectory)
    above = trajectories[0][0].score if common is None else common + 0.04
    tenths = [tenth / 10 for tenth in range(1, 11) if above < tenth / 10 <= best + 1e-9]
    return ([] if common is None else [common]) + tenths
