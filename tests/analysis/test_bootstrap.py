import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.analysis.bootstrap import RESAMPLES, interval, ratio, resampled_means


def test_enough_resamples_are_drawn_for_a_95_percent_interval():
    assert RESAMPLES >= 2000


def test_the_interval_of_known_draws_is_their_percentiles():
    assert interval(50.0, np.arange(101.0), level=0.9) == pytest.approx((50.0, 5.0, 95.0))


def test_resamples_of_two_questions_are_means_of_what_was_drawn():
    draws = resampled_means(np.array([[0.0], [1.0]]), np.random.default_rng(0))[:, 0]
    assert set(draws) == {0.0, 0.5, 1.0}
    assert [np.mean(draws == value) for value in (0.0, 0.5, 1.0)] == pytest.approx([0.25, 0.5, 0.25], abs=0.03)


def test_the_same_seed_gives_the_same_resamples_whatever_their_number():
    values = np.arange(14.0).reshape(7, 2)
    draws = resampled_means(values, np.random.default_rng(5), 300)
    assert np.array_equal(draws, resampled_means(values, np.random.default_rng(5), 300))
    assert draws.shape == (300, 2)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40), st.integers(0, 99))
def test_columns_are_resampled_together(answers, seed):
    now, base = np.array(answers, dtype=float).T
    draws = resampled_means(np.stack([now, base, now - base], axis=1), np.random.default_rng(seed), 50)
    assert draws[:, 2] == pytest.approx(draws[:, 0] - draws[:, 1])
    assert np.all((draws[:, :2] >= 0) & (draws[:, :2] <= 1 + 1e-12))


def test_a_constant_loss_on_every_question_has_no_uncertainty():
    base = np.random.default_rng(0).random(30)
    draws = resampled_means(np.stack([base, base - 0.25], axis=1), np.random.default_rng(1))
    assert interval(0.25, draws[:, 0] - draws[:, 1]) == pytest.approx((0.25, 0.25, 0.25))


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        values = (rng.random((100, 1)) < 0.7).astype(float)
        _, low, high = interval(values.mean(), resampled_means(values, rng, 500)[:, 0])
        covered += low <= 0.7 <= high
    assert 0.9 <= covered / 300 <= 0.98


def test_a_ratio_to_what_may_be_nothing_has_no_interval():
    assert ratio(np.array([0.5, 0.5]), np.array([1.0, 0.0])) is None
    assert list(ratio(np.array([0.5, 0.5]), np.array([1.0, 0.5]))) == [0.5, 1.0]
