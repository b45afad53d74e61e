import numpy as np
import pytest
from scipy import stats

from bench.coverage import Design, simulate
from holdfast.analysis.estimates import (
    QUESTIONS_ONLY,
    REPLICATES,
    SEEDS,
    Moments,
    estimate,
    less,
    mean_of,
    pooled,
    ratio,
    spread,
)


def test_mean_over_benchmarks_has_the_variance_of_its_strata() -> None:
    values = np.array([[1.0, 1, 0, 0, 1, 0]])
    found = mean_of(values, np.array([0, 0, 0, 0, 1, 1]), np.arange(6))
    assert found.means.tolist() == [0.5]
    # A quarter of (1/3) / 4 and of (1/2) / 2.
    assert float(spread(found).questions.variance) == pytest.approx((1 / 12 + 1 / 4) / 4)


def test_questions_about_one_image_are_one() -> None:
    values, strata = np.array([[1.0, 1, 0, 0]]), np.zeros(4, int)
    alone = spread(mean_of(values, strata, np.arange(4))).questions
    together = spread(mean_of(values, strata, np.array([0, 0, 1, 1]))).questions
    assert float(alone.variance) == pytest.approx(1 / 12)
    assert float(together.variance) == pytest.approx(1 / 4)
    assert float(together.freedom) == 1


def test_questions_of_other_benchmarks_take_no_part() -> None:
    values = np.array([[1.0, 0, 1, 1]])
    found = mean_of(values, np.array([0, 0, -1, -1]), np.arange(4))
    assert found.means.tolist() == [0.5]
    assert found.questions == 2


def test_what_is_not_finite_is_left_out_and_counted() -> None:
    values = np.array([[1.0, 0, np.nan, 1], [1.0, 0, 0, np.inf]])
    found = mean_of(values, np.zeros(4, int), np.arange(4))
    assert found.means.tolist() == pytest.approx([2 / 3, 1 / 3])
    assert found.left_out == 2


def test_a_measure_of_nothing_is_not_a_number() -> None:
    found = estimate(mean_of(np.full((2, 3), np.nan), np.zeros(3, int), np.arange(3)))
    assert np.isnan([found.value, found.low, found.high]).all()


def test_one_question_has_no_interval() -> None:
    found = estimate(mean_of(np.array([[1.0]]), np.zeros(1, int), np.arange(1)))
    assert found.value == 1
    assert np.isnan([found.low, found.high]).all()


def test_parts_of_the_variance_by_hand() -> None:
    values = np.array([[1.0, 1, 0, 0], [1.0, 0, 0, 0]])
    found = spread(mean_of(values, np.zeros(4, int), np.arange(4)))
    # Means 1/2 and 1/4: S² = 1/32.
    assert float(found.between.variance) == pytest.approx(1 / 64)
    assert float(found.between.freedom) == 1
    scale = 4 / 3 / 16
    errors = values - values.mean(1, keepdims=True)
    within = ((errors - errors.mean(0)) ** 2).sum() * scale / 2
    assert float(found.within) == pytest.approx(within)
    assert float(found.questions.variance) == pytest.approx((errors.mean(0) ** 2).sum() * scale - within)


def test_without_any_difference_between_replicates_the_interval_is_that_of_the_questions() -> None:
    row = np.array([1.0] * 30 + [0.0] * 30)
    found = estimate(mean_of(np.stack([row] * 3), np.zeros(60, int), np.arange(60)))
    half = stats.t.ppf(0.975, 59) * np.sqrt(row.var(ddof=1) / 60)
    assert (found.low, found.high) == pytest.approx((0.5 - half, 0.5 + half))
    assert (found.replicates, found.questions, found.covers) == (3, 60, REPLICATES)


def test_where_replicates_alone_vary_the_interval_is_students() -> None:
    found = estimate(Moments(np.array([0.2, 0.4, 0.6]), np.zeros((3, 9))))
    half = stats.t.ppf(0.975, 2) * 0.2 / np.sqrt(3)
    assert (found.value, found.high) == pytest.approx((0.4, 0.4 + half))


def test_one_replicate_covers_questions_only() -> None:
    found = estimate(mean_of(np.array([[1.0, 0, 1]]), np.zeros(3, int), np.arange(3)))
    assert found.covers == QUESTIONS_ONLY


def test_retention_is_a_ratio_whose_error_has_the_bases() -> None:
    now = mean_of(np.array([[1.0, 0, 0, 0]]), np.zeros(4, int), np.arange(4))
    base = mean_of(np.array([[1.0, 1, 0, 0]]), np.zeros(4, int), np.arange(4))
    kept = ratio(now, base)
    assert kept.means.tolist() == [0.5]
    # (now − ½ base) / ½ is 1, −1, 0, 0.
    assert float(spread(kept).questions.variance) == pytest.approx(np.var([1, -1, 0, 0], ddof=1) / 4)


def test_retention_of_a_base_that_knows_nothing_is_unknown() -> None:
    nothing = mean_of(np.zeros((1, 4)), np.zeros(4, int), np.arange(4))
    assert np.isnan(ratio(nothing, nothing).means).all()


def test_a_difference_to_the_base_is_paired_by_question() -> None:
    values = np.array([[1.0, 1, 0, 0]])
    same = mean_of(values, np.zeros(4, int), np.arange(4))
    assert float(spread(less(same, same)).questions.variance) == 0


def test_draws_of_other_questions_vary_by_their_means_alone() -> None:
    draws = [mean_of(np.full((2, 4), share), np.zeros(4, int), np.arange(4)) for share in (0.2, 0.4, 0.6)]
    found = estimate(pooled(draws, shared=False))
    assert (found.value, found.replicates, found.covers) == (pytest.approx(0.4), 3, SEEDS)
    assert found.high - found.value == pytest.approx(stats.t.ppf(0.975, 2) * 0.2 / np.sqrt(3))


@pytest.mark.parametrize(
    "deviation", [pytest.param(0.0, marks=pytest.mark.slow), 0.05, pytest.param(0.2, marks=pytest.mark.slow)]
)
def test_intervals_hold_the_truth_and_verdicts_are_seldom_wrong(deviation: float) -> None:
    found = simulate(Design(studies=1000), 3, deviation)
    # A share of 1,000 studies has a standard error of 0.8 %.
    assert 0.905 < found.covered < 0.985
    assert 0.93 < found.difference < 0.99
    assert found.wrong < 0.06
