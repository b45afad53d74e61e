"""Intervals of magnitudes, directions and perplexity against hand-worked resamples of two prompts."""

import numpy as np
import pytest

from holdfast.analysis.bootstrap import MEAN, Interval
from holdfast.analysis.influence_rows import Rows
from holdfast.analysis.magnitudes import _resampled_prompts, magnitude_differences, magnitude_intervals
from holdfast.analysis.measure_sums import measure_sums

LOGGED = {0: {f"{name}/{measure}": 1.0 for name in ("jigsaw", "color") for measure in ("norm", "lbk", "kernel")}}


def rows(prompts, **changes):
    """One benchmark besides the target; every sample a single token at step 0 unless it is told otherwise."""
    count = len(prompts)
    ones, dots = np.ones(count), np.ones((count, 2))
    given = {"steps": np.zeros(count, dtype=int), "tokens": ones, "weights": ones, "dots": dots, "weighted_dots": dots}
    given |= {
        "adam_dots": np.full((count, 2), np.nan),
        "cosines": dots,
        "norms2": ones,
        "certainty": ones,
        "error": ones,
    }
    given |= {"in_sum": ones, "loglik": -ones, "loglik_start": -ones}
    given |= {"kernels2": np.ones((count, 2, 1)), "benchmarks": ("jigsaw", "color"), "prompts": tuple(prompts)}
    return Rows(**given | {"samples": tuple(f"{p}/{n}" for n, p in enumerate(prompts))} | changes)


def squares(*values):
    """A squared kernel for every sample and probe, the same for both benchmarks."""
    return np.repeat(np.array(values, dtype=float).reshape(len(values), 1, -1), 2, axis=1)


def color(data, measure, value):
    return magnitude_intervals(data, {0: {"color/" + measure: value}}, [0], 0)[0][measure]["color"]


def test_the_kernel_of_resamples_of_two_prompts_is_the_root_of_their_means():
    # Squares 4 and 16: resamples have the means 4, 10 and 16.
    found = color(rows("pq", kernels2=squares(4, 16)), "kernel", 10**0.5)
    assert found == pytest.approx(Interval(10**0.5, 2, 4))


def test_the_kernel_of_two_tokens_is_over_the_tokens_of_the_prompts_drawn_and_keeps_the_questions_lengths():
    # 4 / 1, 20 / 3 and 16 / 2, over questions of 2.5 tokens.
    data = rows("pq", kernels2=squares(4, 16), tokens=np.array([1.0, 2.0]))
    found = color(data, "kernel_per_token", (20 / 3 / 2.5) ** 0.5)
    assert found == pytest.approx(Interval((20 / 3 / 2.5) ** 0.5, (4 / 2.5) ** 0.5, (8 / 2.5) ** 0.5))


def test_lbk_is_a_mean_of_squared_dots_over_what_all_tokens_lack_and_leaves_sure_samples_out():
    # Dots 2, 6 and 100 with 1, 9 and 1 tokens of certainty 0.5, 0.5 and 0: 8 and 8 remain, over a spread of 4.
    dots = np.array([[0.0, 2.0], [0.0, 6.0], [0.0, 100.0]])
    data = rows("pqq", dots=dots, certainty=np.array([0.5, 0.5, 0.0]), tokens=np.array([1.0, 9.0, 1.0]))
    assert color(data, "lbk", 2.0) == pytest.approx(Interval(2, 2, 2))
    shorter = rows("pqq", dots=dots, certainty=np.array([0.5, 0.5, 0.0]), tokens=np.array([1.0, 1.0, 1.0]))
    assert color(shorter, "lbk", 10.0) == pytest.approx(Interval(10, 2, 18))


def test_lbk_per_token_divides_by_the_square_of_the_length():
    data = rows("pq", dots=np.array([[0.0, 2.0], [0.0, 6.0]]), tokens=np.array([1.0, 3.0]))
    assert color(data, "lbk_per_token", 4.0) == pytest.approx(Interval(4, 4, 4))


def test_the_reference_codes_lbk_falls_as_samples_are_farther_from_certain():
    # Over mean errors of 0.75; resamples have 0.5, 0.75 and 1.
    data = rows("pq", error=np.array([0.5, 1.0]))
    assert color(data, "lbk_reference", 4.0) == pytest.approx(Interval(4, 3, 6))


def test_the_reference_codes_lbk_counts_along_training_for_the_steps_that_led_to_a_checkpoint():
    data = rows("pqpqpq", steps=np.array([0, 0, 10, 10, 40, 40]))
    logged = {0: {}, 10: {"color/lbk_reference": 4.0}, 40: {"color/lbk_reference": 8.0}}
    found = magnitude_intervals(data, logged, [0, 10, 40], 0)
    assert found[0]["lbk_reference"]["color"] is None
    assert found["training_mean"]["lbk_reference"]["color"] == pytest.approx(Interval(7, 7, 7))


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


def test_of_a_few_probes_one_fewer_is_drawn_so_that_they_vary_as_probes_do():
    drawn = np.array([1.0, 2.0, 9.0])
    sums = np.broadcast_to(drawn, (4, 1, 1, 3))
    means = _resampled_prompts(sums, 0).squeeze() / 4 / 2
    assert means.var() == pytest.approx(drawn.var(ddof=1) / 3, rel=0.1)


def test_along_training_a_checkpoint_counts_for_the_steps_that_began_at_it():
    data = rows("pqpqpq", steps=np.array([0, 0, 10, 10, 40, 40]), kernels2=squares(4, 4, 16, 16, 900, 900))
    logged = {step: {"jigsaw/kernel": 1.0, "color/kernel": value} for step, value in ((0, 2.0), (10, 4.0), (40, 30.0))}
    found = magnitude_intervals(data, logged, [0, 10, 40], 0)["training_mean"]["kernel"]
    assert found["color"] == found[MEAN] == pytest.approx(Interval(3.5, 3.5, 3.5))


def test_a_difference_is_paired_on_the_prompts_that_both_have():
    hard = [10.0 * place for place in range(1, 30)]
    names = [str(place) for place in range(29)]
    first = rows([*names, "only"], norms2=np.array([*(value + 1 for value in hard), 1e6]) ** 2)
    second = rows([*names, "other"], norms2=np.array([*hard, 1.0]) ** 2)
    logged = tuple({0: {"color/norm": float(np.sqrt(data.norms2).mean())}} for data in (first, second))
    found = magnitude_differences((first, second), logged, ([0], [0]), 0)["norm"]["color"]
    assert found == pytest.approx(Interval(1, 1, 1))


def test_fewer_than_two_common_prompts_have_no_difference():
    assert magnitude_differences((rows("pq"), rows("qr")), (LOGGED, LOGGED), ([0], [0]), 0) == {}


def test_a_single_prompt_has_values_without_bounds():
    found = color(rows("pp"), "kernel", 3.0)
    assert found.value == 3
    assert np.isnan(found.low)


def test_what_was_not_kept_or_not_logged_has_no_interval():
    nothing = np.full(2, np.nan)
    old = rows(
        "pq", certainty=nothing, error=nothing, in_sum=nothing, loglik_start=nothing, kernels2=np.empty((2, 2, 0))
    )
    assert set(measure_sums(old)) == {"norm", "norm_per_token", "perplexity", "dot_sample", "weighted", "positive"}
    assert magnitude_intervals(old, {0: {}}, [0], 0)[0]["norm"]["color"] is None


def test_perplexity_is_the_exponential_of_a_mean_over_the_tokens_drawn():
    loglik = {"loglik": np.array([-2.0, -3.0]), "loglik_start": np.array([-4.0, -np.inf])}
    data = rows("pq", tokens=np.array([1.0, 3.0]), **loglik)
    assert color(data, "perplexity", np.exp(5 / 4)) == pytest.approx(Interval(np.exp(5 / 4), np.e, np.exp(2)))
    found = magnitude_intervals(data, {0: {"perplexity_start": np.exp(4)}}, [0], 0)[0]["perplexity_start"]
    assert found["color"] == found[MEAN] == pytest.approx(Interval(*[np.exp(4)] * 3))


def test_the_share_of_positive_samples_leaves_out_those_without_a_weight():
    dots = np.array([[1.0, 2.0], [1.0, -2.0], [1.0, 0.0], [1.0, -5.0]])
    data = rows("ppqq", weighted_dots=dots, weights=np.array([1.0, 1.0, 0.0, -1.0]))
    # Prompt p has 1 of 2, q has 0 of 1; resamples pp, pq and qq.
    assert color(data, "positive", 1 / 3) == pytest.approx(Interval(1 / 3, 0, 1 / 2))
    found = magnitude_intervals(data, {0: {"weighted": 3 / 4}}, [0], 0)[0]["weighted"]["color"]
    assert found == pytest.approx(Interval(3 / 4, 1 / 2, 1))


def gradients(seed, prompts, lean):
    """Of samples that all lean one way, and of a benchmark that does so too."""
    rng = np.random.default_rng(seed)
    way = np.eye(40)[0]
    return lean * way + rng.normal(size=(prompts, 40)) * rng.uniform(0.5, 1.5, (prompts, 1)), way + np.eye(40)[1]


def summed(found):
    """Rows of such samples, each of a prompt of its own."""
    given, benchmark = found
    total = given.sum(0)
    dots = np.repeat((given @ benchmark)[:, None], 2, axis=1)
    own = {"norms2": (given**2).sum(1), "in_sum": given @ total / np.linalg.norm(total)}
    return rows([str(place) for place in range(len(given))], weighted_dots=dots, **own)


def cosine(given, benchmark):
    total = given.sum(0)
    return total @ benchmark / np.linalg.norm(total) / np.linalg.norm(benchmark)


def alike(given):
    """Mean ⟨x, y⟩ over pairs of samples, over the mean square."""
    products = given @ given.T
    return (products.sum() - np.trace(products)) / (len(given) - 1) / np.trace(products)


@pytest.mark.parametrize(("measure", "exact"), [("cosine", cosine), ("coherence", lambda given, _: alike(given))])
def test_what_takes_the_sum_of_all_samples_varies_as_it_does_among_other_samples(measure, exact):
    truth = [exact(*gradients(seed, 40, 1.0)) for seed in range(400)]
    found = [gradients(seed, 40, 1.0) for seed in range(400, 430)]
    ranges = [color(summed(one), measure, exact(*one)) for one in found]
    assert np.mean([r.high - r.low for r in ranges]) / 4 == pytest.approx(np.std(truth), rel=0.25)
    assert all(r.low < r.value < r.high for r in ranges)


def test_samples_that_are_all_alike_have_coherence_one_however_they_are_redrawn():
    found = color(summed((np.ones((5, 3)), np.ones(3))), "coherence", 1.0)
    assert found == pytest.approx(Interval(1, 1, 1))


def test_samples_that_cancel_have_a_coherence_below_zero_and_bounds():
    given, benchmark = gradients(3, 12, 0.0)
    given = given - 0.9 * given.mean(0)
    found = color(summed((given, benchmark)), "coherence", alike(given))
    assert found.low < found.high
    assert found.value == pytest.approx(alike(given))
    assert found.value < 0


def test_what_takes_the_sum_of_all_samples_has_no_difference_on_a_part_of_the_prompts():
    data, more = rows("pq"), rows("pqr")
    logged = ({0: {"color/cosine": 1.0, "color/norm": 1.0}},) * 2
    assert "cosine" in magnitude_differences((data, data), logged, ([0], [0]), 0)
    found = magnitude_differences((data, more), logged, ([0], [0]), 0)
    assert "norm" in found
    assert "cosine" not in found
