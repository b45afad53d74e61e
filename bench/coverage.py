"""How often 95 % intervals hold the truth, and how often equal arms are told apart, in simulated studies.

Run: python -m bench.coverage [--studies 1000] [--replicates 3 5 10] [--accuracy 0.3 0.6 0.9]. A study asks 100
questions of each of 8 benchmarks, two about each of 400 images, drawn anew for every study. A replicate's accuracy is
normal about its arm's, cut off at 0 and 1 (`cut`: the share of replicates; the truth is the mean after the cut). How
hard a question is has a part for all arms, one for an arm and one for a replicate. The base answers 95 % right. Prints
a Markdown table: coverage for the mean accuracy, for retention (over the base on the same questions), for the
difference of two arms with the same spread between replicates and with one that has none; and the share of studies in
which any of five equal arms is called better than another after Holm's correction.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import numpy as np
from scipy.stats import norm

from holdfast.analysis.estimates import Estimate, decide, differences, holm, mean, ratio

BENCHMARKS, EACH, ARMS = 8, 100, 5
QUESTIONS = BENCHMARKS * EACH
IMAGES = QUESTIONS // 2
IMAGE = np.tile(np.arange(IMAGES), 2)
BENCHMARK = np.concatenate([np.arange(IMAGES) % BENCHMARKS, (np.arange(IMAGES) + 3) % BENCHMARKS])
SPREADS = (0.0, 0.02, 0.05, 0.1, 0.2)
BASE = 0.95
OF_IMAGE, OF_QUESTION, OF_ARM, OF_REPLICATE = 0.15, 0.35, 0.1, 0.4
"""Shares of the variance of how hard a question is."""


class Cell(NamedTuple):
    accuracy: float
    spread: float
    """Standard deviation between replicates, of accuracy."""
    replicates: int


class Row(NamedTuple):
    """Shares of studies."""

    cell: Cell
    cut: float
    mean: float
    retention: float
    difference: float
    uneven: float
    better: float


def true_accuracy(cell: Cell) -> float:
    """Mean over replicates after the cut."""
    normal = norm.ppf((np.arange(100_000) + 0.5) / 100_000)
    return float(np.clip(cell.accuracy + cell.spread * normal, 0, 1).mean())


def simulate_study(cell: Cell, rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray]]:
    """Right answers of the base (questions,); of equal arms and one without spread (replicates, questions)."""

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32)

    shared = OF_IMAGE**0.5 * normal(IMAGES)[IMAGE] + OF_QUESTION**0.5 * normal(QUESTIONS)
    base = shared + (OF_ARM + OF_REPLICATE) ** 0.5 * normal(QUESTIONS) < norm.ppf(BASE)
    spreads = [cell.spread] * ARMS + [0.0]
    offsets = np.array(spreads)[:, None] * normal(len(spreads), cell.replicates)
    arms = []
    for bound in norm.ppf(np.clip(cell.accuracy + offsets, 0, 1)):
        hard = shared + OF_ARM**0.5 * normal(QUESTIONS)
        arms.append(hard + OF_REPLICATE**0.5 * normal(cell.replicates, QUESTIONS) < bound[:, None])
    return base / QUESTIONS, [arm / QUESTIONS for arm in arms]


def covers(estimate: Estimate, truth: float) -> bool:
    return estimate.low <= truth <= estimate.high


def simulate_cell(cell: Cell, studies: int, seed: int = 0) -> Row:
    rng = np.random.default_rng([seed, *np.round(np.array(cell) * 100).astype(int)])
    truth = true_accuracy(cell)
    hits = []
    for _ in range(studies):
        base, arms = simulate_study(cell, rng)
        found = differences({str(number): arm for number, arm in enumerate(arms)}, IMAGE, strata=BENCHMARK)
        equal = [result for pair, result in found.items() if str(ARMS) not in pair]
        adjusted = holm([p for _, p in equal])
        words = {decide(estimate, p) for (estimate, _), p in zip(equal, adjusted, strict=True)}
        accuracy = mean(arms[0], IMAGE, strata=BENCHMARK)
        retention = mean(ratio(arms[0], base), IMAGE, strata=BENCHMARK)
        held = [covers(accuracy, truth), covers(retention, truth / BASE), covers(equal[0][0], 0.0)]
        held.append(covers(found["0", str(ARMS)][0], truth - cell.accuracy))
        hits.append([*held, bool(words & {"better", "worse"})])
    # The share of replicates whose accuracy would leave the scale.
    cut = 0.0 if cell.spread == 0 else float(norm.sf(min(cell.accuracy, 1 - cell.accuracy) / cell.spread))
    return Row(cell, cut, *np.mean(hits, axis=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--replicates", type=int, nargs="+", default=[3, 5, 10])
    parser.add_argument("--accuracy", type=float, nargs="+", default=[0.3, 0.6, 0.9])
    options = parser.parse_args()
    print("| accuracy | sd | replicates | cut | mean | retention | difference | one without sd | any better |")
    print("|---|---|---|---|---|---|---|---|---|")
    for accuracy in options.accuracy:
        for spread in SPREADS:
            for replicates in options.replicates:
                row = simulate_cell(Cell(accuracy, spread, replicates), options.studies)
                shares = " | ".join(f"{100 * share:.1f}" for share in row[1:])
                print(f"| {accuracy} | {spread} | {replicates} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
