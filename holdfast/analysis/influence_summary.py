"""What summary.json says of influence, under `influence`: a trace for every influence run, and how these differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from holdfast.analysis.bootstrap import Intervals, shares_after, shares_before
from holdfast.analysis.dot_product import (
    RESAMPLES,
    adam_intervals,
    adam_signs,
    compare_with_adam,
    dot_product_intervals,
    tracin_intervals,
)
from holdfast.analysis.influence_runs import KINDS, Trace
from holdfast.analysis.magnitudes import magnitude_differences, magnitude_intervals
from holdfast.analysis.source_differences import (
    TESTS,
    Difference,
    dot_product_difference,
    equally_long,
    holm,
    paired_differences,
)

OF_SOURCE = ("norm", "norm_per_token")
"""Logged beside every benchmark, and the same for all."""
OF_BENCHMARKS = ("cosine", "positive", "lbk", "lbk_per_token", "kernel", "kernel_per_token")
CHANGES = ("measured", *KINDS)
AGREEMENT = ("pearson", "spearman", "sign")


def summarise_influence(traces: Sequence[Trace], seed: int) -> dict[str, Any]:
    """Everything but texts and pictures; numbers to six digits, whatever their size."""
    found = {trace.label: _trace(trace, seed) for trace in traces}
    return significant_digits(
        {
            "resamples": RESAMPLES,
            "traces": found,
            "adam_signs": adam_signs(found.values()),
            "differences": source_differences(traces, seed),
        }
    )


def _trace(trace: Trace, seed: int) -> dict[str, Any]:
    found = _intervals(trace, seed)
    over_training = found.pop("training_mean")
    return {
        "arm": trace.arm.name,
        "stage": trace.stage,
        "source": trace.source,
        "lora": trace.lora,
        "prompts": len(set(trace.rows.prompts)),
        "samples": round(len(trace.rows.prompts) / len(trace.steps)),
        "means": means(trace),
        "training_mean": over_training,
        "checkpoints": [
            {"step": step, "measures": trace.measures.get(step, {}), **found[step]} for step in trace.steps
        ],
        "adam": compare_with_adam(trace.rows, trace.steps, seed),
        "sums": tracin_intervals(trace.rows, trace.measures, trace.steps, seed),
        "change": change(trace),
        "agreement": agreement(trace),
        "questions": len(trace.trajectory.measured),
        "idle": trace.rows.idle(),
        "notes": trace.notes,
    }


def _intervals(trace: Trace, seed: int) -> dict[int | str, dict[str, Intervals]]:
    """Of dot products, of Adam's, and of what else was logged: at every step and along the training."""
    found = dot_product_intervals(trace.rows, trace.steps, seed)
    own = adam_intervals(trace.rows, trace.steps, seed)
    others = magnitude_intervals(trace.rows, trace.measures, trace.steps, seed)
    return {at: found[at] | own[at] | others[at] for at in found}


def means(trace: Trace) -> dict[str, float | None]:
    """Along training, each step taken by the last checkpoint before it; benchmarks' measures over the prior ones.

    `lbk_reference` is about the steps before a checkpoint, and each step is taken by the first one after it.
    """
    whole = shares_after(trace.steps)

    def training_mean(values: Sequence[float | None], parts: np.ndarray = whole) -> float | None:
        known = [(share, value) for share, value in zip(parts, values, strict=True) if value is not None and share]
        return sum(share * value for share, value in known) / sum(share for share, _ in known) if known else None

    found = {
        name: training_mean([trace.measures[step].get(name) for step in trace.steps])
        for name in ("coherence", "perplexity", "perplexity_start")
    }
    for name in OF_SOURCE:
        found[name] = training_mean([of_source(trace, step, name) for step in trace.steps])
    for name in OF_BENCHMARKS:
        found[name] = training_mean([prior_mean(trace, step, name) for step in trace.steps])
    reference = [prior_mean(trace, step, "lbk_reference") for step in trace.steps]
    return found | {"lbk_reference": training_mean(reference, shares_before(trace.steps))}


def of_source(trace: Trace, step: int, measure: str) -> float | None:
    """A measure of the source alone that is logged beside the benchmarks."""
    return next(iter(trace.at(step, measure).values()), None)


def prior_mean(trace: Trace, step: int, measure: str) -> float | None:
    """Over the prior benchmarks for which it was finite; None if there are none."""
    found = trace.at(step, measure)
    known = [found[name] for name in trace.prior if name in found]
    return sum(known) / len(known) if known else None


def change(trace: Trace) -> dict[str, dict[str, float | None]]:
    """Of every benchmark's log-likelihood per token over the whole training, measured and predicted."""
    last = trace.measures[max(trace.measures)]
    return {name: {kind: last.get(f"{name}/change_{kind}") for kind in CHANGES} for name in trace.rows.benchmarks}


def agreement(trace: Trace) -> dict[str, dict[str, float | None]]:
    """Between predicted and measured changes of prior questions from checkpoint to checkpoint."""
    last = trace.measures[max(trace.measures)]
    return {kind: {name: last.get(f"{name}_{kind}") for name in AGREEMENT} for kind in KINDS}


def source_differences(traces: Sequence[Trace], seed: int) -> list[dict[str, Any]]:
    """Paired, first − second: dots over the training by benchmark, and the same of samples that are equally long."""
    pairs = list(combinations(traces, 2))
    found = [_difference(pair, np.random.default_rng([seed, index])) for index, pair in enumerate(pairs)]
    tests: dict[tuple[str, ...], float] = {
        (str(index), name): p for index, (whole, _) in enumerate(found) if whole for name, p in whole.p.items()
    }
    adjusted = holm(tests)
    return [
        {
            "traces": [trace.label for trace in pair],
            "prompts": whole.prompts if whole else _common(pair),
            "dot": whole.dot if whole else {},
            "p_holm": {name: adjusted[str(index), name] for name in whole.p} if whole else {},
            "measures": _measures(pair, seed),
            "equally_long": similar and {"prompts": similar.prompts, "samples": similar.samples, "dot": similar.dot},
        }
        for index, (pair, (whole, similar)) in enumerate(zip(pairs, found, strict=True))
    ]


def _difference(pair: tuple[Trace, Trace], rng: np.random.Generator) -> tuple[Difference | None, Difference | None]:
    steps = pair[0].steps, pair[1].steps
    rows = pair[0].rows, pair[1].rows
    return (
        dot_product_difference(rows, steps, TESTS, rng),
        dot_product_difference(equally_long(rows), steps, RESAMPLES, rng),
    )


def _measures(pair: tuple[Trace, Trace], seed: int) -> dict[str, Intervals]:
    first, second = pair
    rows, logged, steps = (first.rows, second.rows), (first.measures, second.measures), (first.steps, second.steps)
    return magnitude_differences(rows, logged, steps, seed) | paired_differences(rows, logged, steps, seed)


def _common(pair: tuple[Trace, Trace]) -> int:
    return len(set(pair[0].rows.prompts) & set(pair[1].rows.prompts))


def sure(difference: dict[str, Any], level: float = 0.05) -> list[str]:
    """Benchmarks whose difference stands after Holm's correction."""
    return [name for name, p in difference["p_holm"].items() if p < level]


def significant(value: float | None, count: int = 3) -> str:
    """With a true minus sign; small and large numbers as 1.2e−5."""
    if value is None or not math.isfinite(value):
        return "–"
    mantissa, exponent = f"{value:.{count - 1}e}".split("e")
    power = int(exponent)
    if value and not -4 < power < 5:
        text = f"{mantissa}e{power}"
    else:
        text = f"{value:.{max(0, count - 1 - power) if value else 0}f}"
    return text.replace("-", "−")


def significant_digits(value: Any) -> Any:
    """JSON with named fields; floats to six significant digits, since dots span many orders of magnitude."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return significant_digits(value._asdict())
    if isinstance(value, dict):
        return {key: significant_digits(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [significant_digits(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
