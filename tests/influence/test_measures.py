"""Measures against hand-worked numbers, and against vectors whose geometry is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.influence import measures

# Three gradients in the plane, with weights, against V = (2, 0).
VECTORS = np.array([[3.0, 4.0], [-1.0, 0.0], [0.0, 2.0]])
WEIGHTS = np.array([1.0, 1.0, -0.5])
TOKENS = np.array([5.0, 1.0, 4.0])
TARGET = np.array([2.0, 0.0])


def source(
    vectors: np.ndarray = VECTORS, weights: np.ndarray = WEIGHTS, tokens: np.ndarray = TOKENS
) -> measures.Source:
    total = (weights[:, None] * vectors).sum(0)
    return measures.Source(tokens, weights, (vectors**2).sum(1), float(total @ total), np.full(len(tokens), 0.5))


def benchmark(vectors: np.ndarray = VECTORS) -> measures.Benchmark:
    return measures.Benchmark(vectors @ TARGET, norm2=4.0, halves=1.0, spread=8.0)


def test_measures_on_a_benchmark_are_those_worked_by_hand():
    # Dots 6, −2, 0; w·dots 6, −2, 0; Σ w g = (2, 3); n = 10 tokens.
    found = measures.on_benchmark(source(), benchmark())
    assert found["dot"] == pytest.approx(4 / 10)
    assert found["dot_sample"] == pytest.approx(4 / 3)
    assert found["cosine"] == pytest.approx(4 / (np.sqrt(13) * 2))
    assert found["cosine_debiased"] == pytest.approx(4 / np.sqrt(13))
    assert found["benchmark_norm"] == 2
    assert found["mean_cosine"] == pytest.approx((0.6 - 1.0 + 0.0) / 3)
    assert found["positive"] == pytest.approx(1 / 3)
    # ‖G‖² = 5 × 0.5, 1 × 0.5 and 4 × 0.5.
    assert found["lbk"] == pytest.approx((36 / 5 + 4 / 1 + 0) / (8 * 0.5) / 3)
    assert found["lbk_per_token"] == pytest.approx((36 / 25 + 4 / 1 + 0) / (8 * 0.5) / 3)


def test_measures_of_a_source_are_those_worked_by_hand():
    found = measures.of_source(source())
    assert found["norm"] == pytest.approx((5 + 1 + 2) / 3)
    assert found["norm_per_token"] == pytest.approx((1 + 1 + 0.5) / 3)
    # ‖Σ w g‖² = 13; Σ ‖w g‖² = 25 + 1 + 1.
    assert found["coherence"] == pytest.approx((13 - 27) / (2 * 27))


def test_equal_gradients_are_coherent_and_opposite_ones_cancel():
    assert measures.coherence(4 * 9.0, np.array([9.0, 9.0])) == pytest.approx(1.0)
    assert measures.coherence(0.0, np.array([9.0, 9.0])) == pytest.approx(-1.0)
    assert np.isnan(measures.coherence(9.0, np.array([9.0])))


def test_the_cosine_of_the_sum_is_not_the_mean_of_the_cosines():
    found = measures.on_benchmark(source(), benchmark())
    assert abs(found["cosine"] - found["mean_cosine"]) > 0.5


def test_a_negative_advantage_turns_the_dot_product_round():
    right = measures.on_benchmark(source(weights=np.ones(3)), benchmark())
    wrong = measures.on_benchmark(source(weights=-np.ones(3)), benchmark())
    for name in ("dot", "dot_sample", "cosine", "mean_cosine"):
        assert wrong[name] == pytest.approx(-right[name])
    assert wrong["lbk"] == right["lbk"]


def test_samples_without_weight_count_as_tokens_and_nothing_else():
    found = measures.on_benchmark(source(weights=np.array([1.0, 0.0, 0.0])), benchmark())
    assert found["mean_cosine"] == pytest.approx(0.6)
    assert found["dot"] == pytest.approx(6 / 10)


def test_n_equal_tokens_have_n_times_the_lbk_of_one_and_the_same_lbk_per_token():
    # Token gradients of (3, 4) add up, their squared residuals of 0.5 too.
    one, many = (
        measures.on_benchmark(source(n * VECTORS[:1], np.ones(1), np.array([float(n)])), benchmark(n * VECTORS[:1]))
        for n in (1, 7)
    )
    assert one["lbk"] == pytest.approx(6**2 / (8 * 0.5))
    assert many["lbk"] == pytest.approx(7 * one["lbk"])
    assert many["lbk_per_token"] == pytest.approx(one["lbk_per_token"]) == pytest.approx(one["lbk"])


def test_a_sample_of_which_the_model_is_sure_has_no_part_in_lbk():
    sure = source()._replace(certainty=np.array([0.0, 0.5, 0.5]))
    assert measures.on_benchmark(sure, benchmark())["lbk"] == pytest.approx((4 / 1 + 0) / (8 * 0.5) / 2)
    certain = sure._replace(certainty=np.zeros(3))
    assert np.isnan(measures.on_benchmark(certain, benchmark())["lbk"])


def test_where_no_sample_has_a_weight_nothing_that_takes_weights_is_measured():
    nothing = source(weights=np.zeros(3))
    found = measures.on_benchmark(nothing, benchmark()) | measures.of_source(nothing)
    assert found["weighted"] == 0
    assert {name for name, value in found.items() if np.isnan(value)} == {
        *("dot", "dot_sample", "cosine", "cosine_debiased", "mean_cosine", "positive", "coherence")
    }
    assert np.isnan(measures.exchange(found["dot"], found["dot"]))


def test_exchange_is_forgetting_for_a_unit_of_skill():
    assert measures.exchange(prior=-0.2, skill=0.4) == pytest.approx(0.5)
    assert measures.exchange(prior=0.2, skill=0.4) == pytest.approx(-0.5)
    assert np.isnan(measures.exchange(prior=0.2, skill=0.0))


def test_lbk_in_the_reference_codes_form_keeps_its_second_root():
    found = measures.reference_lbk(np.array([3.0, 4.0]), np.array([16.0, 16.0]), np.array([0.25, 0.75]))
    assert found == pytest.approx(5 / 4 / 0.5)


def test_the_norm_of_the_kernel_is_the_root_of_the_mean_of_all_probes_and_samples():
    # Mean of the squares 25; samples of 2 and 8 tokens, questions of 1.25.
    found = measures.kernel(np.array([[4.0, 16.0], [36.0, 44.0]]), np.array([2.0, 8.0]), 1.25)
    assert found == pytest.approx({"kernel": 5.0, "kernel_per_token": (25 / (5 * 1.25)) ** 0.5})


def test_agreement_is_perfect_for_a_monotone_line_and_absent_for_a_constant():
    line = np.array([-1.0, 0.5, 2.0, 3.0])
    assert measures.agreement(line, 2 * line) == pytest.approx({"pearson": 1.0, "spearman": 1.0, "sign": 1.0})
    assert measures.agreement(line, -(line**3))["spearman"] == pytest.approx(-1.0)
    assert measures.agreement(np.ones(4), line) == {}


def test_equal_values_share_a_rank_and_values_that_are_not_finite_take_no_part():
    # Ranks 1.5, 1.5, 3 against 1, 2, 3: covariance 1.5, variances 1.5 and 2.
    found = measures.agreement(np.array([1.0, 1.0, 2.0, np.nan]), np.array([1.0, 2.0, 3.0, 4.0]))
    assert found["spearman"] == pytest.approx(1.5 / 3**0.5)
    assert found["sign"] == 1


@settings(deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 30), st.floats(0.1, 50))
def test_cosines_are_bounded_and_do_not_know_the_scale(seed: int, samples: int, scale: float):
    rng = np.random.default_rng(seed)
    vectors, weights = rng.normal(size=(samples, 2)), rng.normal(size=samples)
    tokens = np.ones(samples)
    found = measures.on_benchmark(source(vectors, weights, tokens), benchmark(vectors))
    larger = measures.on_benchmark(source(scale * vectors, weights, tokens), benchmark(scale * vectors))
    for name in ("cosine", "mean_cosine"):
        assert -1.0000001 <= found[name] <= 1.0000001
        assert larger[name] == pytest.approx(found[name])
    assert larger["dot"] == pytest.approx(scale * found["dot"])
