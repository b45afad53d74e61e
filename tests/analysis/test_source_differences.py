"""Dots summed with the learning rate, and paired differences of two sources, against hand-worked numbers."""

import numpy as np
import pytest
from influence_table import rows

from holdfast.analysis.bootstrap import MEAN, Interval, with_prior_mean
from holdfast.analysis.dot_product import tracin_intervals
from holdfast.analysis.source_differences import dot_product_difference, paired_differences

STEPS = [0, 5, 9]
DATA = rows(
    *((0, "p", 10, (1, -9)), (0, "q", 10, (3, -1))),
    *((5, "p", 10, (4, -1)), (5, "q", 10, (4, -3))),
    *((9, "p", 10, (999, 999)), (9, "q", 10, (999, 999))),
)
"""Dots on color: −0.9 and −0.1 at the beginning, −0.1 and −0.3 at step 5."""
LOGGED = {0: {"stride": 2.0}, 5: {"stride": 4.0}, 9: {"color/tracin": -1.8, "jigsaw/tracin": 2.0}}


def with_adam(data):
    own = np.where(data.steps[:, None] == 0, np.nan, 2 * data.weighted_dots)
    return data._replace(adam_dots=own)


def test_a_sum_weighs_every_checkpoint_by_rate_and_steps_and_resamples_of_prompts_bound_it():
    found = tracin_intervals(DATA, LOGGED, STEPS, 0)["tracin"]
    # 2 · −0.5 + 4 · −0.2; with p alone 2 · −0.9 + 4 · −0.1, with q alone 2 · −0.1 + 4 · −0.3.
    assert found["color"] == found[MEAN] == pytest.approx(Interval(-1.8, -2.2, -1.4))


def test_where_adams_moments_are_not_known_its_sum_has_no_part():
    logged = {**LOGGED, 9: {"color/adam_tracin": -1.6}}
    found = tracin_intervals(with_adam(DATA), logged, STEPS, 0)["adam_tracin"]
    assert found["color"] == pytest.approx(Interval(-1.6, -2.4, -0.8))
    assert found["jigsaw"] is None


def test_a_checkpoint_at_which_nothing_had_an_advantage_adds_nothing():
    idle = DATA._replace(
        weights=np.array([1.0, 1, 0, 0, 1, 1]), weighted_dots=DATA.weighted_dots * [[1], [1], [0], [0], [1], [1]]
    )
    found = tracin_intervals(idle, {**LOGGED, 9: {"color/tracin": -1.0}}, STEPS, 0)["tracin"]
    assert found["color"] == pytest.approx(Interval(-1.0, -1.8, -0.2))


def test_a_run_that_kept_no_strides_has_sums_without_bounds():
    found = tracin_intervals(DATA, {0: {}, 5: {}, 9: LOGGED[9]}, STEPS, 0)["tracin"]["color"]
    assert found.value == -1.8
    assert np.isnan(found.low)


def shifted(data, by):
    return data._replace(weighted_dots=data.weighted_dots + np.array([[0.0, by]]), cosines=data.cosines + by / 100)


def test_differences_are_paired_so_that_what_both_share_leaves_no_doubt():
    pair, logged = (with_adam(shifted(DATA, 5.0)), with_adam(DATA)), (LOGGED, LOGGED)
    found = paired_differences(pair, logged, (STEPS, STEPS), 0)
    # Every dot is 0.5 higher, and strides add up to 6; Adam's, known from step 5 on, is 1 higher.
    assert found["tracin"]["color"] == pytest.approx(Interval(3, 3, 3))
    assert found["tracin"]["jigsaw"] == pytest.approx(Interval(0, 0, 0))
    assert found["adam_tracin"]["color"] == pytest.approx(Interval(4, 4, 4))
    assert found["adam_dot"]["color"] == pytest.approx(Interval(1, 1, 1))
    assert found["mean_cosine"]["color"] == pytest.approx(Interval(0.05, 0.05, 0.05))


def test_rates_are_subtracted_where_both_sources_always_have_a_positive_dot_with_the_target():
    steps, logged = [0, 5], {0: {}, 5: {}}
    first = rows((0, "p", 10, (2, -4)), (0, "q", 10, (2, -4)), (5, "p", 10, (0, 0)), (5, "q", 10, (0, 0)))
    second = first._replace(weighted_dots=np.array([[4.0, 2.0], [4.0, 2.0], [0, 0], [0, 0]]))
    backward = first._replace(weighted_dots=np.array([[4.0, 2.0], [-1.0, 2.0], [0, 0], [0, 0]]))
    found = paired_differences((first, second), (logged, logged), (steps, steps), 0)["exchange"]
    assert found["color"] == found[MEAN] == pytest.approx(Interval(2.5, 2.5, 2.5))
    assert found["jigsaw"] is None
    assert paired_differences((first, backward), (logged, logged), (steps, steps), 0)["exchange"]["color"] is None


def test_a_step_without_advantages_on_the_common_prompts_was_still_learned_from():
    given = [(0, "p", 10, (4, -4)), (0, "q", 10, (2, -2)), (0, "only", 10, (9, 9))]
    later = [(5, "p", 10, (0, 0)), (5, "q", 10, (0, 0)), (5, "only", 10, (9, 9)), (20, "p", 10, (1, 1))]
    first = rows(*given, *later)
    first = first._replace(weights=np.array([1.0, 1, 1, 0, 0, 1, 1]), adam_dots=first.weighted_dots)
    second = rows(*((step, prompt, 10, (1, 1)) for step in (0, 5, 20) for prompt in ("p", "q")))
    second = second._replace(adam_dots=second.weighted_dots)
    steps, logged = ([0, 5, 20],) * 2, ({0: {}, 5: {}, 20: {}},) * 2
    plain = dot_product_difference((first, second), steps, 2000, np.random.default_rng(0))
    found = paired_differences((first, second), logged, steps, 0)["adam_dot"]
    # A quarter of the way at 0.3 and -0.3, the rest at 0, against 0.1 all along.
    assert found["jigsaw"].value == plain.dot["jigsaw"].value == pytest.approx(0.3 / 4 - 0.1)
    assert found["color"].value == plain.dot["color"].value == pytest.approx(-0.3 / 4 - 0.1)


def test_a_mean_of_what_cancels_is_nothing_and_not_what_rounding_leaves():
    assert (0.1 + 0.2 - 0.3) / 3 != 0
    values = with_prior_mean(("jigsaw", "color", "count", "shape"), np.array([[5.0, 0.1, 0.2, -0.3]]))
    assert values[MEAN].tolist() == [0.0]


def test_only_prompts_that_both_have_are_compared():
    more = rows(*((0, prompt, 10, (1, value)) for prompt, value in (("p", 3), ("q", 3), ("only", 900))))
    fewer = rows(*((0, prompt, 10, (1, value)) for prompt, value in (("p", 1), ("q", 1), ("other", -900))))
    logged = {0: {"stride": 10.0}}
    found = paired_differences((more, fewer), (logged, logged), ([0], [0]), 0)
    assert found["tracin"]["color"] == pytest.approx(Interval(2, 2, 2))
    assert paired_differences((more, rows((0, "p", 10, (1, 1)))), (logged, logged), ([0], [0]), 0) == {}
