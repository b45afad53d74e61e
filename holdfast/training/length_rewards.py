"""Rewards for the length of reasoning, as arithmetic on the lengths of groups of completions.

Lengths are (groups, rollouts), NaN where a completion has no reasoning that could be measured: that gets the variant's
least and is in nobody's minimum, maximum or mean, so broken tags never pay. docs/rewards.md lists the formulas.
"""

from __future__ import annotations

import warnings

import numpy as np

from holdfast.config.rewards import LengthTerm


def length_rewards(term: LengthTerm, lengths: np.ndarray, right: np.ndarray, mean: float | None = None) -> np.ndarray:
    """(groups, rollouts) rewards. `right` says which completions are all right, `mean` is the running mean, if any."""
    with warnings.catch_warnings():
        # Of a group in which nothing could be measured.
        warnings.simplefilter("ignore", RuntimeWarning)
        rewards = _variant(term, lengths, right, mean)
    return np.where(np.isnan(lengths), least(term), rewards)


def least(term: LengthTerm) -> float:
    """The lowest reward of a variant."""
    if term.variant in ("kimi", "kimi-longer"):
        return -0.5
    return min(*term.right, *term.wrong) if term.variant == "cosine" else 0.0


def _variant(term: LengthTerm, lengths: np.ndarray, right: np.ndarray, mean: float | None) -> np.ndarray:
    match term.variant:
        case "minmax":
            return _ranked(lengths)
        case "kimi":
            return _centred(lengths, right, -1.0)
        case "kimi-longer":
            return _centred(lengths, right, 1.0)
        case "zscore":
            return _squashed(lengths)
        case "running-mean":
            # Of nothing yet: the batch's own. Twice the mean is as good as more.
            return np.clip(lengths / max(1.0, np.nanmean(lengths) if mean is None else mean), 0, 2) / 2
        case "band":
            return ((term.low <= lengths) & (lengths <= _high(term))).astype(float)
        case "cosine":
            return _cosine(term, lengths, right)
        case "brevity":
            return np.clip(1 - lengths / _high(term), 0, 1)


def _high(term: LengthTerm) -> int:
    assert term.high is not None
    return term.high


def _ranked(lengths: np.ndarray) -> np.ndarray:
    """(l − min) / (max − min) within the group; 0 where all are equal."""
    low, high = np.nanmin(lengths, 1, keepdims=True), np.nanmax(lengths, 1, keepdims=True)
    return (lengths - low) / np.where(high > low, high - low, 1)


def _centred(lengths: np.ndarray, right: np.ndarray, sign: float) -> np.ndarray:
    """λ = ±(rank − 0.5): λ for what is right, min(0, λ) for what is wrong; 0 where all are equally long.

    With the minus sign the length reward of Kimi k1.5 (arXiv 2501.12599).
    """
    equal = np.nanmin(lengths, 1, keepdims=True) == np.nanmax(lengths, 1, keepdims=True)
    value = np.where(equal, 0.0, sign * (_ranked(lengths) - 0.5))
    return np.where(right, value, np.minimum(0.0, value))


def _squashed(lengths: np.ndarray) -> np.ndarray:
    """The logistic function of the distance from the group's mean in standard deviations; ½ where all are equal."""
    spread = np.nanstd(lengths, 1, keepdims=True)
    return 1 / (1 + np.exp(-(lengths - np.nanmean(lengths, 1, keepdims=True)) / np.where(spread > 0, spread, 1)))


def _cosine(term: LengthTerm, lengths: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Half a cosine from the value at length 0 to that at `high`, for right and for wrong completions each.

    The form of Yeo et al. (arXiv 2502.03373); beyond `high` as there, the least of all values. The values are ours.
    """
    share = (1 + np.cos(np.pi * np.clip(lengths / _high(term), 0, 1))) / 2
    of = [end + (start - end) * share for start, end in (term.right, term.wrong)]
    return np.where(lengths > _high(term), least(term), np.where(right, *of))
