"""Intervals of magnitudes against hand-worked resamples of two prompts."""

import numpy as np
import pytest

from holdfast.comparison.along import MEAN
from holdfast.comparison.influence_rows import Rows
from holdfast.comparison.magnitude import differences, intervals, parts
from holdfast.comparison.statistics import Interval

LOGGED = {0: {f"{name}/{measure}": 1.0 for name in ("jigsaw", "color") for measure in ("norm", "lbk", "kernel")}}


def rows(prompts, **changes):
    """One benchmark besides the target; every sample a single token at step 0 unless it is told otherwise."""
    count = len(prompts)
    ones, dots = np.ones(count), np.ones((count, 2))
    given = {"steps": np.zeros(count, dtype=int), "tokens": ones, "weights": ones, "dots": dots, "pulls": dots}
    given |= {"adam": np.full((count, 2), np.nan), "cosines": dots, "norms2": ones, "certainty": ones}
    given |= {"kernels2": np.ones((count, 2, 1)), "benchmarks": ("jigsaw", "color"), "prompts": tuple(prompts)}
    return Rows(**given | {"samples": tuple(f"{p}/{n}" for n, p in enumerate(prompts))} | changes)


def squares(*values):
    """A squared kernel for every sample and probe, the same for both benchmarks."""
    return np.repeat(np.array(values, dtype=float).reshape(len(values), 1, -1), 2, axis=1)


def color(data, measure, value):
    return intervals(data, {0: {"color/" + measure: value}}, [0], 0)[0][measure]["color"]


def test_the_kernel_of_resamples_of_two_prompts_is_the_root_of_their_means():
    # Squares 4 and 16: resamples have the means 4, 10 and 16.
    found = color(rows("pq", kernels2=squares(4, 16)), "kernel", 10**0.5)
    assert found == pytest.approx(Interval(10**0.5, 2, 4))


def test_the_kernel_of_two_tokens_is_over_the_tokens_of_the_prompts_drawn_and_keeps_the_questions_lengths():
    # 4 / 1, 20 / 3 and 16 / 2, over questions of 2.5 tokens.
    data = rows("pq", kernels2=squares(4, 16), tokens=np.array([1.0, 2.0]))
    found = color(data, "kernel_per_token", (20 / 3 / 2.5) ** 0.5)
    assert found == pytest.approx(Interval((20 / 3 / 2.5) ** 0.5, (4 / 2.5) ** 0.5, (8 / 2.5) ** 0.5))


def test_lbk_is_a_mean_of_squared_dots_over_certainty_and_leaves_sure_samples_out():
    # Dots 2, 6 and 100 with certainty 0.5, 0.5 and 0: 8 and 72 remain, over a spread of 4.
    dots = np.array([[0.0, 2.0], [0.0, 6.0], [0.0, 100.0]])
    data = rows("pqq", dots=dots, certainty=np.array([0.5, 0.5, 0.0]))
    assert color(data, "lbk", 10.0) == pytest.approx(Interval(10, 2, 18))


def test_lbk_per_token_divides_by_the_square_of_the_length():
    data = rows("pq", dots=np.array([[0.0, 2.0], [0.0, 6.0]]), tokens=np.array([1.0, 3.0]))
    assert color(data, "lbk_per_token", 4.0) == pytest.approx(Interval(4, 4, 4))


def test_norms_are_means_of_lengths():
    data = rows("pq", norms2=np.array([4.0, 16.0]), tokens=np.array([1.0, 4.0]))
    assert color(data, "norm", 3.0) == pytest.approx(Interval(3, 2, 4))
    assert color(data, "norm_per_token", 1.5) == pytest.approx(Interval(1.5, 1, 2))


def test_rollouts_of_a_prompt_are_redrawn_together():
    alike = rows("p" * 50 + "q" * 50, kernels2=squares(*[1] * 50, *[9] * 50))
    own = rows([str(place) for place in range(100)], kernels2=squares(*[1, 9] * 50))
    clustered, independent = (color(data, "kernel", 5**0.5) for data in (alike, own))
    assert clustered == pytest.approx(Interval(5**0.5, 1, 3))
    assert 2 < independent.low < 5**0.5 < independent.high < 2.5


def test_several_probes_are_redrawn_too_and_one_alone_says_nothing_of_another():
    one, two = (rows("pq", kernels2=given) for given in (squares(4, 4), squares((1, 9), (1, 9))))
    assert color(one, "kernel", 2.0) == pytest.approx(Interval(2, 2, 2))
    assert color(two, "kernel", 5**0.5) == pytest.approx(Interval(5**0.5, 1, 3))


def test_along_training_a_checkpoint_counts_for_the_steps_that_began_at_it():
    data = rows("pqpqpq", steps=np.array([0, 0, 10, 10, 40, 40]), kernels2=squares(4, 4, 16, 16, 900, 900))
    logged = {step: {"jigsaw/kernel": 1.0, "color/kernel": value} for step, value in ((0, 2.0), (10, 4.0), (40, 30.0))}
    found = intervals(data, logged, [0, 10, 40], 0)["along"]["kernel"]
    assert found["color"] == found[MEAN] == pytest.approx(Interval(3.5, 3.5, 3.5))


def test_a_difference_is_paired_on_the_prompts_that_both_have():
    hard = [10.0 * place for place in range(1, 30)]
    names = [str(place) for place in range(29)]
    first = rows([*names, "only"], norms2=np.array([*(value + 1 for value in hard), 1e6]) ** 2)
    second = rows([*names, "other"], norms2=np.array([*hard, 1.0]) ** 2)
    logged = tuple({0: {"color/norm": float(np.sqrt(data.norms2).mean())}} for data in (first, second))
    found = differences((first, second), logged, ([0], [0]), 0)["norm"]["color"]
    assert found == pytest.approx(Interval(1, 1, 1))


def test_fewer_than_two_common_prompts_have_no_difference():
    assert differences((rows("pq"), rows("qr")), (LOGGED, LOGGED), ([0], [0]), 0) == {}


def test_a_single_prompt_has_values_without_bounds():
    found = color(rows("pp"), "kernel", 3.0)
    assert found.value == 3
    assert np.isnan(found.low)


def test_what_was_not_kept_or_not_logged_has_no_interval():
    old = rows("pq", certainty=np.full(2, np.nan), kernels2=np.empty((2, 2, 0)))
    assert set(parts(old)) == {"norm", "norm_per_token"}
    assert intervals(old, {0: {}}, [0], 0)[0]["norm"]["color"] is None
