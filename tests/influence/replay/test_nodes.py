"""Where nodes are put between two others."""

from __future__ import annotations

import numpy as np

from holdfast.influence.replay.nodes import LEAST, Gap, _worst, shares


def gap(measured: list[float], predicted: list[float]) -> Gap:
    return Gap(np.array(measured), np.array(predicted))


def test_a_node_goes_where_most_is_missed_of_a_benchmark_that_is_missed_too_much() -> None:
    gaps = {(0, 4): gap([-1.0, 0.2], [-0.9, 0.2]), (4, 8): gap([-0.5, 0.1], [-0.3, 0.1])}
    assert shares(list(gaps.values())).tolist() == [0.3 / 1.5, 0.0]
    assert _worst(gaps, 0.05) == (4, 8)
    assert _worst(gaps, 0.25) is None


def test_between_neighbouring_steps_there_is_no_room() -> None:
    assert _worst({(0, 1): gap([-1.0], [0.0])}, 0.05) is None


def test_where_next_to_nothing_is_missed_a_node_would_buy_nothing() -> None:
    assert _worst({(0, 8): gap([0.8 * LEAST], [0.0])}, 0.05) is None
    assert _worst({(0, 8): gap([1.2 * LEAST], [0.0])}, 0.05) == (0, 8)
