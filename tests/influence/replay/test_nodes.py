"""Where nodes are put between two others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from holdfast.influence.replay.nodes import LEAST, BenchmarkNodes, Gap, share, worst
from holdfast.influence.replay.steps import StepStore


def test_a_node_goes_where_most_is_missed_of_a_benchmark_that_is_missed_too_much() -> None:
    gaps = {(0, 4): Gap(-1.0, -0.9), (4, 8): Gap(-0.5, -0.3)}
    assert share(gaps.values()) == pytest.approx(0.3 / 1.5)
    assert worst(gaps, (), 0.05) == (4, 8)
    assert worst(gaps, (), 0.25) is None


def test_where_nothing_is_left_to_do_another_way_is_taken() -> None:
    gaps = {(0, 1): Gap(-1.0, 0.0), (1, 8): Gap(-1.0, -0.8)}
    assert worst(gaps, {(0, 1)}, 0.05) == (1, 8)
    assert worst(gaps, {(0, 1), (1, 8)}, 0.05) is None


def test_where_next_to_nothing_is_missed_a_node_would_buy_nothing() -> None:
    assert worst({(0, 8): Gap(0.8 * LEAST, 0.0)}, (), 0.05) is None
    assert worst({(0, 8): Gap(1.2 * LEAST, 0.0)}, (), 0.05) == (0, 8)


class Power:
    """ℓ(θ) = θⁿ along a training that walks from 0 to 2 in eight steps."""

    def __init__(self, n: int, place: Path) -> None:
        self.n, self.model = n, torch.nn.Linear(1, 1, bias=False).double()
        store = StepStore(place)
        for step in range(9):
            with torch.no_grad():
                self.model.weight.fill_(step / 4)
            store.keep(step, self.model)
        self.nodes = BenchmarkNodes(self.model, store, self.measure, place / "gradients")
        self.nodes.begin((0, 4, 8))

    def measure(self) -> tuple[float, dict[str, torch.Tensor]]:
        weight = self.model.weight.detach()
        return float(weight**self.n), {"weight": self.n * weight ** (self.n - 1)}


def test_the_mean_of_both_ends_is_exact_for_squares_and_nothing_is_looked_at_half_way(tmp_path: Path) -> None:
    nodes = Power(2, tmp_path).nodes
    assert nodes.gaps == {(0, 4): Gap(1, 1), (4, 8): Gap(3, 3)}
    assert nodes.refine(1e-9, 24) == 0
    assert not nodes.halfway


def test_cubes_are_missed_by_it_and_not_by_simpsons_mean(tmp_path: Path) -> None:
    nodes = Power(3, tmp_path).nodes
    # (f'(0) + f'(1)) / 2 = 1.5, and (f'(1) + f'(2)) / 2 = 7.5.
    assert nodes.gaps == {(0, 4): Gap(1, 1.5), (4, 8): Gap(7, 7.5)}
    assert nodes.refine(1e-9, 24) == 0
    assert nodes.halfway == {(0, 4), (4, 8)}
    assert [gap.predicted for gap in nodes.gaps.values()] == pytest.approx([1, 7], rel=1e-12)


def test_beyond_that_nodes_are_added_as_long_as_there_are_some(tmp_path: Path) -> None:
    nodes = Power(6, tmp_path).nodes
    assert nodes.refine(1e-9, 2) == 2
    # Simpson's mean misses 0.375 of the second half, and then most, 0.125, of the first.
    assert sorted(nodes.loglik) == [0, 2, 4, 6, 8]
    assert set(nodes.gaps) == nodes.halfway == {(0, 2), (2, 4), (4, 6), (6, 8)}
    assert sum(gap.measured for gap in nodes.gaps.values()) == 2**6
    waiting = {path.stem for path in nodes.folder.iterdir()}
    assert {name for name in waiting if name.startswith("between")} == {
        f"between-{start}-{end}" for start, end in nodes.gaps
    }
    assert nodes.around(7, 8) == (6, 8)
