import numpy as np
import pytest

from holdfast.analysis.estimates import Moments, mean_of
from holdfast.analysis.verdicts import difference, holm, needed, paired, word


def arm(*means: float) -> Moments:
    return Moments(np.array(means), np.zeros((len(means), 20)), 100)


def test_holms_correction_by_hand() -> None:
    assert holm(np.array([0.01, 0.04, 0.03])).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert holm(np.array([0.6, 0.7])).tolist() == [1.0, 1.0]


def test_what_was_not_tested_takes_no_part_in_the_correction() -> None:
    found = holm(np.array([np.nan, 0.02, 0.01]))
    assert np.isnan(found[0])
    assert found[1:].tolist() == pytest.approx([0.02, 0.02])


def test_p_is_the_level_whose_interval_reaches_zero() -> None:
    found = difference(arm(0.5, 0.6, 0.7), arm(0.2, 0.3, 0.4))
    # Welch's t with equal variances: 0.3 / √(2 · 0.01 / 3) of 4 degrees of freedom.
    assert found.p == pytest.approx(0.0213, abs=2e-4)
    assert found.estimate.value == pytest.approx(0.3)
    assert found.estimate.low == pytest.approx(0.3 - 2.7764 * np.sqrt(0.02 / 3), abs=1e-4)


def test_what_is_hard_for_both_falls_out_of_a_difference() -> None:
    easy = np.array([[1.0] * 5 + [0.0] * 5])
    first, second = (mean_of(np.stack([row[0]] * 2), np.zeros(10, int), np.arange(10)) for row in (easy, easy))
    assert float(difference(first, second).spread.questions.variance) == 0
    apart = difference(first, second, same_questions=False)
    assert float(apart.spread.questions.variance) > 0


def test_words() -> None:
    better = difference(arm(0.50, 0.51, 0.52), arm(0.1, 0.11, 0.12))
    assert word(better, 0.01) == "better"
    assert word(difference(arm(0.1, 0.11, 0.12), arm(0.50, 0.51, 0.52)), 0.01) == "worse"
    assert word(better, 0.2) == "not distinguishable"
    assert word(difference(arm(0.5), arm(0.1)), float("nan")) == "no verdict (one replicate)"
    assert word(difference(arm(0.5, 0.5), arm(0.1)), float("nan")) == "no verdict (one replicate)"
    assert word(difference(arm(np.nan, 0.5), arm(0.1, 0.2)), float("nan")) == "not comparable"


def test_equal_arms_that_do_not_vary_are_not_told_apart() -> None:
    found = difference(arm(0.5, 0.5), arm(0.5, 0.5))
    assert found.p == pytest.approx(1)


def test_needed_replicates_decide() -> None:
    found = difference(arm(0.5, 0.6, 0.7), arm(0.4, 0.5, 0.6))
    replicates, questions = needed(found, 3)
    assert replicates is not None
    assert replicates > 3
    # No question would make replicates alike.
    assert questions is None
    more = difference(arm(*[0.5, 0.6, 0.7] * replicates), arm(*[0.4, 0.5, 0.6] * replicates))
    assert more.p < 0.05 / 3


def test_no_number_of_replicates_decides_between_equals() -> None:
    assert needed(difference(arm(0.5, 0.6), arm(0.6, 0.5)), 1) == (None, None)


def test_draws_are_paired() -> None:
    first, second = (arm(*means)._replace(seeds=True) for means in ((0.2, 0.5, 0.8), (0.1, 0.4, 0.7)))
    assert paired(first, second).estimate.value == pytest.approx(0.1)
    assert float(paired(first, second).spread.between.variance) == pytest.approx(0)
