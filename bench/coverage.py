"""How often do the intervals hold the truth, and how often is a verdict wrong? Simulated studies of known truth.

`python -m bench.coverage` prints the table in docs/results.md. A study has a base and five prior benchmarks;
an arm's replicates have a retention each, drawn with a mean of 0.6 or 0.85 and some standard deviation. Part of
the questions share their fate in all replicates and arms.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

import numpy as np

from holdfast.analysis.estimates import half_width, mean_of, ratio, spread
from holdfast.analysis.verdicts import difference_spread, holm, p_value

REPLICATES = (3, 5, 10)
DEVIATIONS = (0.0, 0.02, 0.05, 0.1, 0.2)
BASE = 0.9
"""Its accuracy."""
COMMON = 0.7
"""Share of questions whose fate all replicates and arms share."""
BATCH = 250
"""Studies simulated at a time, which bounds memory."""


class Design(NamedTuple):
    """What the simulated studies have in common."""

    studies: int = 2000
    benchmarks: int = 5
    questions: int = 60
    """Of each benchmark."""
    retention: float = 0.6
    arms: int = 4
    """Equal ones, of which each pair is given a verdict."""


class Coverage(NamedTuple):
    """Of one cell; shares of the studies."""

    covered: float
    """Intervals of one arm's retention that hold its expectation."""
    width: float
    """Mean width of these."""
    difference: float
    """Intervals of a difference of two arms that hold 0."""
    wrong: float
    """Studies in which some arm is called better than another, after correction."""


def simulate(design: Design, replicates: int, deviation: float, seed: int = 0) -> Coverage:
    """Coverage in one cell."""
    found = [
        _batch(
            design, replicates, deviation, np.random.default_rng([seed, replicates, round(1000 * deviation), number])
        )
        for number in range(-(-design.studies // BATCH))
    ]
    return Coverage(*np.mean(found, axis=0).tolist())


def _batch(design: Design, replicates: int, deviation: float, rng: np.random.Generator) -> tuple[float, ...]:
    count = design.benchmarks * design.questions
    strata, clusters = np.repeat(np.arange(design.benchmarks), design.questions), np.arange(count)
    base = rng.random((BATCH, 1, count)) < BASE
    fate, common = rng.random((BATCH, 1, count)), rng.random((BATCH, 1, count)) < COMMON
    before = mean_of(base.astype(float), strata, clusters)
    arms = []
    for _ in range(design.arms):
        kept = deviate(rng, design.retention, deviation, (BATCH, replicates, 1))
        ease = np.where(common, fate, rng.random((BATCH, replicates, count)))
        arms.append(ratio(mean_of((base & (ease < kept)).astype(float), strata, clusters), before))
    found = spread(arms[0])
    half = half_width(found.between, found.questions)
    apart = [
        (first.means.mean(-1) - second.means.mean(-1), difference_spread(first, second))
        for first, second in combinations(arms, 2)
    ]
    value, one = apart[0]
    p = holm(np.stack([p_value(*pair) for pair in apart], -1))
    return (
        float((np.abs(arms[0].means.mean(-1) - design.retention) <= half).mean()),
        float(2 * half.mean()),
        float((np.abs(value) <= half_width(one.between, one.questions)).mean()),
        float((p < 0.05).any(-1).mean()),
    )


def deviate(rng: np.random.Generator, mean: float, deviation: float, shape: tuple[int, ...]) -> np.ndarray:
    """Shares with this mean and standard deviation (of a beta distribution)."""
    if not deviation:
        return np.full(shape, mean)
    size = mean * (1 - mean) / deviation**2 - 1
    return rng.beta(mean * size, (1 - mean) * size, shape)


def cells(design: Design) -> Iterator[tuple[int, float, Coverage]]:
    for replicates in REPLICATES:
        for deviation in DEVIATIONS:
            yield replicates, deviation, simulate(design, replicates, deviation)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=2000, help="simulated studies in each cell")
    parser.add_argument("--retention", type=float, nargs="*", default=[0.6, 0.85])
    given = parser.parse_args()
    print("| retention | replicates | sd between them | interval holds it | mean width | difference holds 0 | wrong |")
    print("|---|---|---|---|---|---|---|")
    for retention in given.retention:
        for replicates, deviation, found in cells(Design(given.studies, retention=retention)):
            numbers = f"{found.covered:.1%} | {found.width:.3f} | {found.difference:.1%} | {found.wrong:.1%}"
            print(f"| {retention:g} | {replicates} | {deviation:g} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
