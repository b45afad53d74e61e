"""What a source's samples do to a benchmark, as arithmetic on norms and dots. Imports no torch.

Notation: g_u is the gradient of the log-likelihood of sample u's completion (summed over its tokens), w_u its weight
(1, or the advantage of a rollout), n_u its tokens, V the mean gradient of a benchmark's log-likelihood per token. A
training step of rate η moves the parameters by η Σ w_u g_u / Σ n_u and the benchmark by η times `dot`, to first order:
positive reinforces what the model knew, negative makes it forget (Ren & Sutherland 2025; arXiv 2506.23508, Thm 5.1).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Source(NamedTuple):
    """Samples of one source at one checkpoint."""

    tokens: np.ndarray
    """n (samples,)."""
    weights: np.ndarray
    """w (samples,)."""
    norms2: np.ndarray
    """‖g‖² (samples,)."""
    sum_norm2: float
    """‖Σ w g‖²."""
    certainty: np.ndarray
    """Mean over tokens of ‖G‖² = ‖π‖² − 2π_y + 1 (samples,)."""


class Benchmark(NamedTuple):
    """One target at the same checkpoint."""

    dots: np.ndarray
    """⟨g_u, V⟩ (samples,)."""
    norm2: float
    """‖V‖²."""
    halves: float
    """⟨V_a, V_b⟩ of its disjoint halves: ‖V‖² without what few questions add to it."""
    spread: float
    """Mean over tokens of ‖A‖² = |V|·‖π‖² + |V| − 2, of vocabulary |V|."""


def of_source(source: Source) -> dict[str, float]:
    """Measures that no benchmark takes part in.

    `norm`: mean ‖g‖. `norm_per_token`: the same of g/n. `weighted`: share of samples whose weight is not 0; rollouts
    that are all rewarded alike have none. `coherence`: the share of the mean squared length that is left in the mean
    gradient, without the bias of few samples; near 0 where samples cancel. Its units are samples, so the rollouts of a
    prompt, whose advantages add up to 0, make it smaller.
    """
    w, n = source.weights, source.tokens
    lengths = np.sqrt(source.norms2)
    return {
        "norm": float(lengths.mean()),
        "norm_per_token": float((lengths / n).mean()),
        "weighted": float((w != 0).mean()),
        "coherence": coherence(source.sum_norm2, w**2 * source.norms2),
    }


def coherence(sum_norm2: float, norms2: np.ndarray) -> float:
    """(‖Σx‖² − Σ‖x‖²) / ((N − 1) Σ‖x‖²): mean over pairs of ⟨x_i, x_j⟩ over the mean of ‖x‖²; 1 if all are alike."""
    total = float(norms2.sum())
    if len(norms2) < 2 or total == 0.0:
        return float("nan")
    return (sum_norm2 - total) / ((len(norms2) - 1) * total)


def on_benchmark(source: Source, benchmark: Benchmark) -> dict[str, float]:
    """Measures of a source on a benchmark.

    `dot`: change of the benchmark per unit of learning rate. `dot_sample`: mean over samples of w⟨g, V⟩, which grows
    with length. `cosine`: of the sum of samples with V; `cosine_debiased`: with ‖V‖² from disjoint halves.
    `benchmark_norm`: ‖V‖. `mean_cosine`: mean of the samples' own cosines. `positive`: share of samples that
    reinforce. `lbk`: mean of ⟨g, V⟩² / (‖A‖² ‖G‖²), the paper's LBK with its first-order Δ log π at unit rate. G has a
    column for each of the n tokens, so ‖G‖² = n × the certainty, and a sample of n equal tokens has n times the LBK of
    one. `lbk_per_token`: the same over n. Both without samples of which the model is so sure that ‖G‖ is 0.

    Where no sample has a weight there is nothing to learn from, and what takes weights is not a number.
    """
    w, n, dots = source.weights, source.tokens, benchmark.dots
    length = float(np.sqrt(benchmark.norm2))
    dot_product = float((w * dots).sum())
    own = np.sqrt(source.norms2) * np.abs(w)
    cosines = np.divide(w * dots, own * length, out=np.zeros_like(dots), where=own * length > 0)
    moving = w != 0
    unsure = source.certainty > 0
    explained = dots[unsure] ** 2 / (benchmark.spread * n[unsure] * source.certainty[unsure])
    return {
        "dot": dot_product / float(n.sum()) if moving.any() else float("nan"),
        "dot_sample": float((w * dots).mean()) if moving.any() else float("nan"),
        "cosine": _over(dot_product, float(np.sqrt(source.sum_norm2)) * length),
        "cosine_debiased": _over(dot_product, float(np.sqrt(source.sum_norm2 * max(benchmark.halves, 0.0)))),
        "benchmark_norm": length,
        "mean_cosine": float(cosines[moving].mean()) if moving.any() else float("nan"),
        "positive": float((w * dots > 0)[moving].mean()) if moving.any() else float("nan"),
        "lbk": float(explained.mean()) if unsure.any() else float("nan"),
        "lbk_per_token": float((explained / n[unsure]).mean()) if unsure.any() else float("nan"),
    }


def exchange(prior: float, skill: float) -> float:
    """Forgetting per unit of skill: −⟨Σwg, V_prior⟩ / ⟨Σwg, V_target⟩; negative where learning the skill helps."""
    return _over(-prior, skill)


def kernel(squares: np.ndarray, tokens: np.ndarray, question_tokens: float) -> dict[str, float]:
    """Norms of the eNTK between samples and a benchmark's questions, from random-logit probes.

    `squares` (probes, samples) are squared dots, each with the mean ‖K‖²_F over the questions as its expectation;
    `question_tokens` is the mean number of tokens of these. `kernel`: √ of the mean. `kernel_per_token`: the same of
    two tokens' ‖K_ml‖²_F. The means are unbiased; their roots are too small on average, the more so the
    fewer the probes.
    """
    mean = float(squares.mean())
    return {"kernel": mean**0.5, "kernel_per_token": (mean / (float(tokens.mean()) * question_tokens)) ** 0.5}


def perplexity(loglik: np.ndarray, tokens: np.ndarray) -> float:
    """exp(−Σ log π / Σ n) of all samples together; not a number without any."""
    return float(np.exp(-_over(float(loglik.sum()), float(tokens.sum()))))


def reference_lbk(change: np.ndarray, spread_norms: np.ndarray, errors: np.ndarray) -> float:
    """LBK as Ren & Sutherland's notebook computes it, over an interval of training.

    ‖Δ log π‖₂ over the probe questions, with log π summed over tokens, / √(mean of √(|V|·(mean‖π‖)² + |V| − 2)) / mean
    over tokens of ‖π − e_y‖. The root of a quantity that is a root already is the notebook's; `lbk` has the formula's
    form.
    """
    return float(np.sqrt((change**2).sum()) / np.sqrt(spread_norms.mean()) / errors.mean())


def agreement(predicted: np.ndarray, measured: np.ndarray) -> dict[str, float]:
    """Pearson's and Spearman's correlation, and how often the signs agree, where both are finite."""
    known = np.isfinite(predicted) & np.isfinite(measured)
    predicted, measured = predicted[known], measured[known]
    if len(predicted) < 3 or predicted.std() == 0 or measured.std() == 0:
        return {}
    first, second = _ranks(predicted), _ranks(measured)
    return {
        "pearson": float(np.corrcoef(predicted, measured)[0, 1]),
        "spearman": float(np.corrcoef(first, second)[0, 1]),
        "sign": float((np.sign(predicted) == np.sign(measured)).mean()),
    }


def _ranks(values: np.ndarray) -> np.ndarray:
    """Equal values share the mean of their ranks."""
    _, group, times = np.unique(values, return_inverse=True, return_counts=True)
    return (times.cumsum() - (times - 1) / 2)[group]


def _over(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else float("nan")
