import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from influence_table import rows

from holdfast.analysis.bootstrap import MEAN, Interval, shares_after
from holdfast.analysis.dot_product import (
    RESAMPLES,
    Signs,
    adam_intervals,
    adam_signs,
    compare_with_adam,
    dot_product_intervals,
    dot_products,
    last_learned,
)
from holdfast.analysis.source_differences import TESTS, dot_product_difference, equally_long, holm


def generator():
    return np.random.default_rng(0)


def test_a_dot_is_the_sum_of_weighted_dots_over_the_sum_of_tokens():
    found = dot_products(rows((0, "p", 10, (4, -1)), (0, "p", 30, (0, -1)), (0, "q", 10, (6, 2))), [0], 1, None)
    assert found.dot[0, 0] == pytest.approx([10 / 50, 0])
    assert found.cosine[0, 0] == pytest.approx([10 / 300, 0])


def test_a_checkpoint_counts_for_the_steps_that_began_at_it():
    assert shares_after([0, 60, 120, 240]) == pytest.approx([0.25, 0.25, 0.5, 0])
    data = rows((0, "p", 10, (10, 10)), (60, "p", 10, (20, 30)), (180, "p", 10, (999, 999)))
    found = dot_product_intervals(data, [0, 60, 180], 0)
    assert found["training_mean"]["dot"]["color"].value == pytest.approx((1 * 60 + 3 * 120) / 180)
    assert found[180]["dot"]["color"].value == pytest.approx(99.9)


def test_the_prior_mean_leaves_the_target_out():
    data = rows((0, "p", 1, (9, 1, 3)), (0, "q", 1, (9, 1, 3)), benchmarks=("jigsaw", "color", "count"))
    assert dot_product_intervals(data, [0], 0)[0]["dot"][MEAN].value == pytest.approx(2)


def test_prompts_are_redrawn_and_not_their_rollouts():
    alike = rows(*[(0, prompt, 1, (1, value)) for prompt, value in (("p", -1), ("q", 1)) for _ in range(50)])
    own = rows(*[(0, f"{place}", 1, (1, 1 if place % 2 else -1)) for place in range(100)])
    clustered, independent = (dot_product_intervals(data, [0], 0)[0]["dot"]["color"] for data in (alike, own))
    assert (clustered.value, clustered.low, clustered.high) == (0, -1, 1)
    assert -0.3 < independent.low < independent.high < 0.3


def test_resamples_of_two_prompts_are_both_or_one_of_them_twice():
    data = rows((0, "p", 10, (1, 0)), (0, "q", 30, (1, 40)))
    drawn = dot_products(data, [0], RESAMPLES, generator()).dot[:, 0, 1]
    assert set(np.round(drawn, 9)) == {0, 1, round(40 / 30, 9)}


def test_one_prompt_alone_has_no_interval():
    found = dot_product_intervals(rows((0, "p", 10, (5, 1)), (0, "p", 10, (5, 3))), [0], 0)[0]
    assert found["dot"]["color"].value == pytest.approx(0.2)
    assert np.isnan(found["dot"]["color"].low)
    assert found["exchange"]["color"] is None


def test_an_exchange_rate_is_forgetting_per_skill():
    data = rows((0, "p", 10, (4, -1)), (0, "q", 10, (2, -2)))
    found = dot_product_intervals(data, [0], 0)[0]["exchange"]
    assert found["color"] == pytest.approx((0.5, 0.25, 1))
    assert found[MEAN] == found["color"]
    assert "jigsaw" not in found


@pytest.mark.parametrize("second", [-3, -5])
def test_there_is_no_exchange_rate_where_a_resample_learns_no_skill(second):
    data = rows((0, "p", 10, (4, -1)), (0, "q", 10, (second, -2)))
    assert dot_product_intervals(data, [0], 0)[0]["exchange"]["color"] is None


def test_a_weight_of_0_has_no_cosine_and_still_its_tokens():
    data = rows((0, "p", 10, (5, 5)), (0, "q", 10, (0, 0)))
    data.cosines[1] = np.nan
    found = dot_products(data, [0], 1, None)
    assert found.cosine[0, 0] == pytest.approx([0.05, 0.05])
    assert found.dot[0, 0] == pytest.approx([0.25, 0.25])


def test_a_checkpoint_at_which_nothing_has_a_weight_has_no_dot_and_no_part_in_the_mean():
    data = rows(
        (0, "p", 10, (0, 0)), (0, "q", 10, (0, 0)), (5, "p", 10, (5, 1)), (5, "q", 10, (5, 3)), (9, "p", 1, (1, 1))
    )
    data.weights[:2] = 0
    data.cosines[:2] = np.nan
    assert data.idle() == [0]
    found = dot_product_intervals(data, [0, 5, 9], 0)
    assert found[0]["dot"] == {"jigsaw": None, "color": None, MEAN: None}
    assert found["training_mean"]["dot"]["color"].value == found[5]["dot"]["color"].value == pytest.approx(0.2)


def test_differences_are_taken_on_the_prompts_that_both_have():
    first = rows((0, "p", 1, (0, 3)), (0, "q", 1, (0, 5)), (0, "only", 1, (0, 900)))
    second = rows((0, "p", 1, (0, 1)), (0, "q", 1, (0, 3)), (0, "other", 1, (0, -900)))
    found = dot_product_difference((first, second), ([0], [0]), TESTS, generator())
    assert (found.prompts, found.samples) == (2, (2, 2))
    assert found.dot["color"] == pytest.approx((2, 2, 2))


def test_pairing_removes_what_the_prompts_have_in_common():
    hard = [10.0 * place for place in range(30)]
    first, second = (
        rows(*[(0, f"{place}", 1, (0, value + lead)) for place, value in enumerate(hard)]) for lead in (1, 0)
    )
    found = dot_product_difference((first, second), ([0], [0]), TESTS, generator())
    assert found.dot["color"] == pytest.approx((1, 1, 1))
    assert found.p["color"] < 0.001
    assert found.p["jigsaw"] == 1


def test_checkpoints_may_differ_between_two_sources():
    first = rows(*[(step, prompt, 1, (0, 1)) for step in (0, 10) for prompt in "pq"])
    second = rows(*[(step, prompt, 1, (0, step / 40)) for step in (0, 40, 80) for prompt in "pq"])
    found = dot_product_difference((first, second), ([0, 10], [0, 40, 80]), TESTS, generator())
    assert found.dot["color"].value == pytest.approx(1 - 0.5)


def test_few_prompts_prove_no_more_than_a_sign_test_could():
    first, second = (rows(*[(0, prompt, 1, (0, value)) for prompt in "abcdef"]) for value in (1, 0))
    assert dot_product_difference((first, second), ([0], [0]), TESTS, generator()).p["color"] == 2**-5


def test_fewer_than_two_common_prompts_have_no_difference():
    first, second = rows((0, "p", 1, (0, 1)), (0, "q", 1, (0, 1))), rows((0, "q", 1, (0, 1)), (0, "r", 1, (0, 1)))
    assert dot_product_difference((first, second), ([0], [0]), TESTS, generator()) is None


def test_different_benchmarks_are_refused():
    other = rows((0, "p", 1, (0, 1)), benchmarks=("jigsaw", "count"))
    with pytest.raises(ValueError, match="different benchmarks"):
        dot_product_difference((rows((0, "p", 1, (0, 1))), other), ([0], [0]), TESTS, generator())


def test_equally_long_means_ten_percent_of_the_longer_one_for_the_same_prompt():
    first = rows((0, "p", 20, (0, 1)), (0, "p", 17, (0, 2)), (0, "q", 10, (0, 3)), (0, "r", 9, (0, 4)))
    second = rows((0, "p", 18, (0, 5)), (0, "q", 20, (0, 6)), (0, "r", 10, (0, 7)), (0, "s", 10, (0, 8)))
    kept = equally_long((first, second))
    assert kept[0].weighted_dots[:, 1].tolist() == [1, 2, 4]
    assert kept[1].weighted_dots[:, 1].tolist() == [5, 7]
    assert kept[0].prompts == ("p", "p", "r")


def test_lengths_that_never_match_leave_nothing():
    first, second = (rows(*[(0, prompt, tokens, (0, 1)) for prompt in "pq"]) for tokens in (9, 45))
    kept = equally_long((first, second))
    assert kept[0].prompts == ()
    assert dot_product_difference(kept, ([0], [0]), TESTS, generator()) is None


def test_holm_multiplies_the_least_by_all_the_next_by_one_less_and_never_falls():
    given_p = {("a",): 0.04, ("b",): 0.01, ("c",): 0.03, ("d",): 0.8}
    adjusted = {("a",): 0.09, ("b",): 0.04, ("c",): 0.09, ("d",): 0.8}
    assert holm(given_p) == pytest.approx(adjusted)
    assert list(holm(given_p)) == list(given_p)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_lies_between_the_p_values_and_bonferroni(values):
    adjusted = holm({(str(place),): value for place, value in enumerate(values)})
    for place, value in enumerate(values):
        assert value <= adjusted[str(place),] <= min(1, value * len(values)) + 1e-12


def test_enough_resamples_are_drawn_to_survive_the_correction():
    assert RESAMPLES >= 2000
    assert 2 / (TESTS + 1) * 10 * 9 < 0.05


DATA = rows(
    *((0, "p", 10, (1, -9)), (0, "q", 10, (1, -9))),
    *((5, "p", 10, (4, -1)), (5, "q", 10, (2, -2))),
    *((9, "p", 10, (1, 1)), (9, "q", 10, (1, 1))),
)
"""Weighted dots with the target and with color at the beginning, at a checkpoint, and at the end."""
OWN = np.array([[np.nan, np.nan]] * 2 + [[2.0, 1.0], [4.0, 1.0]] + [[1.0, 1.0]] * 2)
STEPS = [0, 5, 9]
KINDS = ("dot", "adam_dot")


def scaled(weighted_dots=OWN):
    return DATA._replace(adam_dots=np.array(weighted_dots))


def test_adams_rate_is_worked_from_the_preconditioned_dots_and_unknown_at_the_beginning():
    found = adam_intervals(scaled(), STEPS, 0)
    assert found[0]["adam_exchange"]["color"] is None
    assert found[5]["adam_dot"]["color"] == pytest.approx(Interval(0.1, 0.1, 0.1))
    # −2 / 6, with resamples −1 / 2 and −1 / 4.
    assert found[5]["adam_exchange"]["color"] == pytest.approx(Interval(-1 / 3, -1 / 2, -1 / 4))


def test_along_training_both_rates_are_without_the_stretch_that_adam_lacks():
    found = compare_with_adam(scaled(), STEPS, 0)
    assert found["training_mean"]["exchange"]["color"].value == pytest.approx(3 / 6)
    assert found["training_mean"]["adam_exchange"]["color"].value == pytest.approx(-2 / 6)
    assert found["training_mean"]["exchange"] == found["last"]["exchange"]


def test_the_last_checkpoint_is_one_that_something_was_learned_from():
    assert compare_with_adam(scaled(), STEPS, 0)["step"] == 5
    idle = scaled()._replace(weights=np.array([1.0, 1, 0, 0, 1, 1]))
    assert last_learned(idle, STEPS) == 0


def test_without_moments_there_is_nothing_to_lay_beside():
    assert compare_with_adam(scaled(np.full((6, 2), np.nan)), STEPS, 0) is None
    assert adam_signs([{"adam": None}])["training_mean"] == (0, 0, 0)


def pair(plain, own):
    """Of a source whose rates are not known."""
    dots = {
        kind: dict.fromkeys(("jigsaw", "mean", "color"), one) for kind, one in zip(KINDS, (plain, own), strict=True)
    }
    return dots | {"exchange": {"mean": None, "color": None}}


def test_opposite_signs_are_counted_by_source_and_prior_benchmark_even_without_a_rate():
    below, above, unsure = Interval(-1, -2, -0.5), Interval(1, 0.5, 2), Interval(1, -0.5, 2)
    given = [pair(below, above), pair(below, unsure), pair(above, unsure), pair(below, None), pair(None, above)]
    found = adam_signs([{"adam": {"training_mean": one, "last": pair(above, above)}} for one in given])
    assert found["training_mean"] == Signs(compared=3, differ=2, sure=1)
    assert found["last"] == Signs(compared=5, differ=0, sure=0)
