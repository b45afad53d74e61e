"""Where nodes are put between two others."""

from __future__ import annotations

import pytest

from holdfast.influence.replay.nodes import LEAST, Gap, share, worst


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
