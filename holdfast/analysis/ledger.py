"""Ledgers: what lost and gained the prior, by account, phase of training, right and wrong samples, kind of token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from holdfast.analysis.answers import Answers
from holdfast.analysis.table import whose
from holdfast.config.jobs import FinishedStudy, RunRecord

PHASES = ("first third", "second third", "last third")
ACCOUNTS = (*PHASES, "KL penalty", "weight decay", "rounding", "curvature")
"""In the order in which they lead from the base to the end; samples stand by the phase in which they were learned."""
SIDES = {"right": True, "wrong": False}
TOKENS = "tokens.parquet"
KINDS = ("format", "reasoning", "answer", "end")
COLUMNS = ["setting", "arm", "stage", "source", "account", "right", "wrong", "value", "replicates", "error"]


TOKEN_COLUMNS = ["setting", "arm", "stage", "source", "kind", "tokens", "prior", "target", "replicates"]


def ledger_table(studies: Sequence[FinishedStudy], every: Sequence[Answers]) -> pd.DataFrame:
    """One row a setting, arm, stage and account, the last one `measured`, which the others sum to: change of the prior
    benchmarks' log-likelihood (nats per token, mean over benchmarks and replicates); of samples, `right` and `wrong`
    apart; error, the share of the benchmarks' changes that the closure misses."""
    found = [row for run, answers in _accounted(studies, every) for row in _rows(run, answers)]
    if not found:
        return pd.DataFrame(columns=COLUMNS)
    by = ["setting", "arm", "stage", "source", "account"]
    grouped = pd.DataFrame(found).groupby(by, sort=False)
    means = grouped[["right", "wrong", "value", "error"]].mean().assign(replicates=grouped.size())
    return means.reset_index()[COLUMNS]


def token_table(studies: Sequence[FinishedStudy], every: Sequence[Answers]) -> pd.DataFrame:
    """One row a setting, arm, stage and kind of token (`KINDS`), means over replicates: tokens that a training learned
    from, and what they did to the prior (the mean over all that the stage does not learn) and to its target, in nats
    per token of these."""
    found = [row for run, answers in _accounted(studies, every) if has_tokens(run) for row in _kinds(run, answers)]
    if not found:
        return pd.DataFrame(columns=TOKEN_COLUMNS)
    grouped = pd.DataFrame(found).groupby(["setting", "arm", "stage", "source", "kind"], sort=False)
    means = grouped[["tokens", "prior", "target"]].mean().assign(replicates=grouped.size())
    return means.reset_index()[TOKEN_COLUMNS]


def has_tokens(run: RunRecord) -> bool:
    """Whether a ledger says what single tokens did."""
    return (Path(run.path) / TOKENS).is_file()


def _accounted(studies: Sequence[FinishedStudy], every: Sequence[Answers]) -> Iterator[tuple[RunRecord, Answers]]:
    for study, answers in zip(studies, every, strict=True):
        yield from ((run, answers) for run in study.runs if run.kind == "ledger" and run.arm in answers.arms)


def _kinds(run: RunRecord, answers: Answers) -> Iterator[dict[str, Any]]:
    """Of one run."""
    table = pq.read_table(Path(run.path) / TOKENS, columns=["kind", "prior", "target"]).to_pandas()
    sums = table.groupby("kind")[["prior", "target"]].sum().assign(tokens=table["kind"].value_counts())
    source = pq.read_table(Path(run.path) / "ledger.parquet", columns=["source"])["source"][0].as_py()
    about = answers.place.columns | whose(run) | {"source": source}
    yield from (about | {"kind": kind} | sums.loc[kind].to_dict() for kind in KINDS if kind in sums.index)


def _rows(run: RunRecord, answers: Answers) -> Iterator[dict[str, Any]]:
    """Of one run."""
    rows, closure = (pq.read_table(Path(run.path) / f"{name}.parquet").to_pandas() for name in ("ledger", "closure"))
    prior = [name for name in closure["benchmark"].unique() if answers.role(name) == "prior"]
    effect = np.mean([rows[f"own/{name}"] + rows[f"later/{name}"] for name in prior], axis=0)
    steps = int(rows["step"].max())
    phase = (rows["step"] - 1) * len(PHASES) // steps
    own = closure[closure["benchmark"].isin(prior)]
    sums = own.drop(columns=["benchmark", "start", "step"]).sum() / len(prior)
    missed = float(own["curvature"].abs().sum() / own["measured"].abs().sum())
    about = answers.place.columns | whose(run) | {"source": rows["source"].iloc[0], "error": missed}
    parts = {
        name: {kind: float(effect[(phase == index) & (rows["correct"] == flag)].sum()) for kind, flag in SIDES.items()}
        for index, name in enumerate(PHASES)
    }
    for name, part in parts.items():
        yield about | {"account": name, "value": sum(part.values())} | part
    others = {
        "KL penalty": sums["penalty"] + sums["penalty_later"],
        "weight decay": sums["decay"],
        "rounding": sums["rounding"],
        "curvature": sums["curvature"],
        "measured": sums["measured"],
    }
    for name, value in others.items():
        yield about | {"account": name, "value": float(value), "right": np.nan, "wrong": np.nan}
