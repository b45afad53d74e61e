"""Samples left out: what a ledger says that should do to the prior, beside what training without them did.

An arm that selects from a source is held against the arm that learned from all of it and has a ledger, replicate by
replicate. Both take as many steps, so the samples that are kept fill the places of those that are not: with e_i the
effect of place i of n, of which n' held kept samples, Δ = (n / n') Σ_kept e_i − Σ e_i. That is first order: the steps
of all others stay as they were.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from holdfast.analysis.answers import TEST, Answers, Checkpoint
from holdfast.analysis.ledger import over_replicates, prior_effects
from holdfast.config.methods import SFT, Selection
from holdfast.config.results import FinishedStudy, RunRecord

OF = ["setting", "arm", "whole", "by"]
MEASURES = ("predicted", "measured", "beyond")
COLUMNS = [
    *(*OF, "kept", "places"),
    *(column for name in MEASURES for column in (name, f"{name}_low", f"{name}_high")),
    "replicates",
]


def removal_table(studies: Sequence[FinishedStudy], every: Sequence[Answers]) -> pd.DataFrame:
    """One row a setting and arm that selects: arm, whole (the arm that learned from all), by, kept (share of samples),
    places (share of the ledger's that held them); change of the prior benchmarks' log-likelihood against `whole`, in
    nats per token of their reference answers and in their mean: predicted by the ledger, measured on test questions,
    and beyond (measured less predicted), each with its 95 % interval over replicates; none of one replicate."""
    found = [row for one in zip(studies, every, strict=True) for row in _compared(*one)]
    if not found:
        return pd.DataFrame(columns=COLUMNS)
    return over_replicates(found, OF, [*MEASURES], ["kept", "places"])[COLUMNS]


def _compared(study: FinishedStudy, answers: Answers) -> Iterator[dict[str, Any]]:
    """One row a replicate of an arm."""
    ledgers = {(run.arm, run.replicate): run for run in study.runs if run.kind == "ledger"}
    order = list(study.study.trained)
    selected = [run for run in study.runs if run.kind == "select" and run.arm in answers.arms]
    for run in sorted(selected, key=lambda run: (order.index(str(run.arm)), run.replicate)):
        arm = str(run.arm)
        whole, selection = _whole(study, arm)
        ledger = ledgers.get((whole, run.replicate))
        part_end, whole_end = (_end(answers, name, run.replicate) for name in (arm, whole))
        if selection is None or ledger is None or part_end is None or whole_end is None:
            continue
        kept, places = _places(run, ledger, answers)
        predicted = kept.mean() * len(places) - places.sum()
        measured = _likelihood(answers, part_end) - _likelihood(answers, whole_end)
        row = answers.place.columns | {"arm": arm, "whole": whole, "by": selection.by, "kept": selection.share}
        row |= {"places": len(kept) / len(places)}
        yield row | {"predicted": predicted, "measured": measured, "beyond": measured - predicted}


def _whole(study: FinishedStudy, arm: str) -> tuple[str, Selection | None]:
    """The arm of a single stage that differs from this one in nothing but that it selects nothing; "" for none."""
    [stage, *more] = study.study.trained[arm]
    if more or not isinstance(stage, SFT):
        return "", None
    alike = (stage.model_copy(update={"select": None}),)
    wholes = (other for other, stages in study.study.trained.items() if stages == alike)
    return next(wholes, ""), stage.select


def _end(answers: Answers, arm: str, replicate: int) -> Checkpoint | None:
    return next((end for end in answers.ends.get(arm, ()) if end.replicate == replicate), None)


def _places(run: RunRecord, ledger: RunRecord, answers: Answers) -> tuple[np.ndarray, np.ndarray]:
    """Effect on the prior of every place of the ledger that held a sample which the run kept, and of every place."""
    rows = pq.read_table(Path(ledger.path) / "ledger.parquet").to_pandas()
    effect = prior_effects(rows, answers)
    samples = pq.read_table(Path(run.path) / "samples.parquet", columns=["id", "completion"])
    kept = set(zip(*(samples[name].to_pylist() for name in ("id", "completion")), strict=True))
    held = [pair in kept for pair in zip(rows["prompt"], rows["text"], strict=True)]
    return effect[np.array(held)], effect


def _likelihood(answers: Answers, end: Checkpoint) -> float:
    """Log-likelihood a token of the prior's test questions, in the mean over benchmarks."""
    files = answers.tables.files
    own = (files["study"] == answers.place.study) & (files["role"] == "prior")
    for name, value in end._asdict().items():
        own &= files[name] == value
    tables = [pq.read_table(path, columns=["split", "logprob"]).to_pandas() for path in files["path"][own]]
    return float(np.mean([table["logprob"][table["split"] == TEST].mean() for table in tables]))
