"""What was kept and what was lost, as arithmetic on metrics. Imports no torch."""

from __future__ import annotations

from math import comb

PRIOR_MEAN = "prior/mean/accuracy"


def prior_accuracies(metrics: dict[str, float]) -> dict[str, float]:
    """Accuracy of each prior benchmark by name."""
    return _of_priors(metrics, "accuracy")


def _of_priors(metrics: dict[str, float], wanted: str) -> dict[str, float]:
    found = {}
    for name, value in metrics.items():
        kind, *benchmark, measure = name.split("/")
        if kind == "prior" and measure == wanted and benchmark != ["mean"]:
            found["/".join(benchmark)] = value
    return found


def forgetting(base: dict[str, float], now: dict[str, float]) -> dict[str, float]:
    """Accuracy lost since the base on every prior benchmark and on their mean; retention is the share that is left.

    Positive is forgotten, negative is gained: the negative of backward transfer. Where form counts apart, what was lost
    of answers in their form stands below `strict`: what that is more than the loss of accuracy is lost form alone.
    """
    before, after = prior_accuracies(base), prior_accuracies(now)
    lost = {f"forgetting/{name}": before[name] - after[name] for name in before}
    in_form, now_in_form = _of_priors(base, "strict"), _of_priors(now, "strict")
    lost |= {f"forgetting/{name}/strict": in_form[name] - now_in_form[name] for name in in_form if name in now_in_form}
    lost["forgetting/mean"] = base[PRIOR_MEAN] - now[PRIOR_MEAN]
    if base[PRIOR_MEAN] > 0:
        lost["retention"] = now[PRIOR_MEAN] / base[PRIOR_MEAN]
    return lost


def pass_at(k: int, samples: int, right: int) -> float:
    """Chance that one of k samples is right, unbiased from `samples` ≥ k of which `right` are (Chen et al. 2021)."""
    return 1.0 - comb(samples - right, k) / comb(samples, k)
