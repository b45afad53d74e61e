"""What was kept and what was lost, as arithmetic on metrics. Imports no torch."""

from __future__ import annotations

from math import comb

PRIOR_MEAN = "prior/mean/accuracy"


def forgetting(base: dict[str, float], now: dict[str, float]) -> dict[str, float]:
    """Accuracy lost since the base on every prior benchmark and on their mean; retention is the share that is left.

    Positive is forgotten, negative is gained: the negative of backward transfer. Where form counts apart, what was lost
    of answers in their form stands below `strict`: what that is more than the loss of accuracy is lost form alone.
    """
    known = [name for name in base if name.startswith("prior/") and name.endswith("/accuracy")]
    lost = {f"forgetting/{name[len('prior/') : -len('/accuracy')]}": base[name] - now[name] for name in known}
    in_form = [name for name in base if name.startswith("prior/") and name.endswith("/strict") and name in now]
    lost |= {f"forgetting/{name.removeprefix('prior/')}": base[name] - now[name] for name in in_form}
    if base[PRIOR_MEAN] > 0:
        lost["retention"] = now[PRIOR_MEAN] / base[PRIOR_MEAN]
    return lost


def pass_at(k: int, samples: int, right: int) -> float:
    """Chance that one of k samples is right, unbiased from `samples` ≥ k of which `right` are (Chen et al. 2021)."""
    return 1.0 - comb(samples - right, k) / comb(samples, k)
