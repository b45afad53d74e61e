import math

import numpy as np
import pytest
from scipy import stats

from bench.coverage import Cell, simulate_cell
from holdfast.analysis.estimates import (
    Estimate,
    decide,
    difference,
    differences,
    holm,
    mean,
    needed_questions,
    needed_replicates,
    ratio,
)


def answers(shift=0.0, replicates=3, questions=60, seed=0):
    """Contributions to an accuracy; questions are as hard for all replicates, in part."""
    rng = np.random.default_rng([seed, int(100 * abs(shift))])
    hard = np.random.default_rng(seed).normal(size=questions)
    return (hard + rng.normal(size=(replicates, questions)) < shift) / questions


EACH = np.arange(60)


def test_questions_only_is_the_classical_interval():
    values = answers(replicates=1)
    found = mean(values, EACH, constant=1.0)
    half = stats.t.ppf(0.975, 59) * (60 * values[0]).std(ddof=1) / math.sqrt(60)
    center = 1 + values.sum()
    assert found == pytest.approx((center, center - half, center + half, 1, 60, "questions only"))


def test_without_differences_between_questions_replicates_are_a_t_interval():
    values = np.tile(np.array([[0.2], [0.5], [0.6]]), 4) / 4
    found = mean(values, np.arange(4))
    low, high = stats.t.interval(0.95, 2, 1.3 / 3, stats.sem([0.2, 0.5, 0.6]))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert (found.replicates, found.covers) == (3, "questions and replicates")


def test_both_parts_of_the_variance_and_their_degrees_of_freedom():
    # Nothing depends on which replicate is asked which question.
    of_replicate, of_question = np.array([0.40, 0.44, 0.45]), np.random.default_rng(1).normal(size=60)
    found = mean((of_replicate[:, None] + of_question) / 60, EACH)
    between, common = of_replicate.var(ddof=1) / 3, of_question.var(ddof=1) / 60
    cautious = 3 * between
    freedom = (cautious + common) ** 2 / (cautious**2 / 2 + common**2 / 59)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(between + common)
    assert found.high - found.value == pytest.approx(half)


def test_replicates_that_answer_alike_add_nothing():
    one = answers(replicates=1)
    assert mean(np.repeat(one, 3, axis=0), EACH)[:3] == pytest.approx(mean(one, EACH)[:3])


def test_copies_of_a_question_about_one_image_are_no_new_questions():
    values = answers()
    twice = np.repeat(values, 2, axis=1) / 2
    assert mean(twice, np.repeat(EACH, 2))[:3] == pytest.approx(mean(values, EACH)[:3])
    # Any order.
    mixed = np.random.default_rng(0).permutation(120)
    assert mean(twice[:, mixed], np.repeat(EACH, 2)[mixed])[:3] == pytest.approx(mean(values, EACH)[:3])


def test_differences_between_benchmarks_are_not_chance():
    strata = EACH % 2
    values = np.tile((strata == 0) / 60, (2, 1))
    assert mean(values, EACH, strata=strata)[:3] == pytest.approx((0.5, 0.5, 0.5))
    assert mean(values, EACH).high > 0.6


def test_a_ratio_sums_to_each_replicate_and_forgives_hard_questions():
    base = answers(1.0, 1)[0]
    assert ratio(answers(), base).sum(axis=1) == pytest.approx(answers().sum(axis=1) / base.sum())
    assert mean(ratio(base[None], base), EACH)[:3] == pytest.approx((1, 1, 1))
    with pytest.raises(ValueError, match="not positive"):
        ratio(answers(), np.zeros(60))


def test_a_difference_is_paired_by_question():
    one = answers(replicates=1)
    same, p = difference(np.repeat(one, 3, axis=0), np.repeat(one, 3, axis=0), EACH)
    assert same[:3] == pytest.approx((0, 0, 0), abs=1e-12)
    assert p == 1
    a, b = answers(0.5, 3), answers(0.0, 3)
    found, p = difference(a, b, EACH)
    back, p_back = difference(b, a, EACH)
    assert (found.low, found.high, p) == pytest.approx((-back.high, -back.low, p_back))
    assert differences({"b": b, "a": a}, EACH)["b", "a"] == (back, p_back)
    # Its interval leaves 0 out where p says so.
    exact, _ = difference(a, b, EACH, level=1 - p)
    assert exact.low == pytest.approx(0, abs=1e-9)


def test_one_replicate_gives_no_verdict():
    found, p = difference(answers(3.0, 1), answers(-3.0, 5), EACH)
    assert math.isnan(p)
    assert (found.replicates, found.covers) == (1, "questions only")
    assert decide(found, p) == "no verdict (one replicate)"
    assert needed_replicates(answers(3.0, 1), answers(-3.0, 5), EACH) is None


def test_holm_on_numbers_worked_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.04, math.nan, 0.02]) == pytest.approx([0.04, math.nan, 0.04], nan_ok=True)
    assert holm([0.9, 0.8]).max() == 1
    assert holm([]).size == 0


@pytest.mark.parametrize(
    ("value", "p", "word"), [(0.1, 0.04, "better"), (-0.1, 0.04, "worse"), (0.1, 0.06, "not distinguishable")]
)
def test_the_words_of_a_verdict(value, p, word):
    assert decide(Estimate(value, -1, 1, 3, 60, "questions and replicates"), p) == word


def test_as_many_replicates_as_are_said_to_be_needed_are_enough():
    gap = np.array([[0.0], [0.06], [0.12]]) + np.zeros(60)
    a, b = (gap + 0.05) / 60, gap / 60
    needed = needed_replicates(a, b, EACH)
    assert needed is not None
    assert needed > 3
    # The variance between replicates is 0.06² in both; nothing comes from questions.
    enough, less = (stats.t.sf(0.05 / math.sqrt(2 * 0.06**2 / n), 2 * (n - 1)) * 2 for n in (needed, needed - 1))
    assert enough <= 0.05 < less
    assert needed_questions(a, b, EACH) is None
    assert needed_replicates(a, a, EACH) is None


def test_questions_help_where_they_are_what_is_uncertain():
    b = np.repeat(answers(0.0, 1), 3, axis=0)
    a = np.repeat(answers(0.3, 1), 3, axis=0)
    assert difference(a, b, EACH)[1] > 0.05
    needed = needed_questions(a, b, EACH)
    assert needed is not None
    assert difference(np.tile(a, 50) / 50, np.tile(b, 50) / 50, np.arange(3000))[1] < 0.05
    assert 60 < needed < 3000
    assert needed_replicates(a, b, EACH) is None


def test_what_is_missing_is_refused():
    values = answers()
    values[0, 0] = math.nan
    with pytest.raises(ValueError, match="finite"):
        mean(values, EACH)


@pytest.mark.parametrize("cell", [Cell(0.6, 0.0, 3), Cell(0.6, 0.05, 3), Cell(0.6, 0.05, 10)])
def test_intervals_cover_what_they_should(cell):
    row = simulate_cell(cell, studies=400)
    for coverage in (row.mean, row.retention, row.difference, row.uneven):
        assert 0.915 <= coverage <= 0.985
    assert row.better <= 0.08
