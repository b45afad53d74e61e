"""Ledgers: what lost and gained the prior, by account, phase of training, right and wrong samples, kind of token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from scipy import stats

from holdfast.analysis.answers import Answers
from holdfast.analysis.table import whose
from holdfast.config.results import FinishedStudy, RunRecord

PHASES = ("first third", "second third", "last third")
ACCOUNTS = (*PHASES, "KL penalty", "weight decay", "rounding", "curvature")
"""In the order in which they lead from the base to the end; samples stand by the phase in which they were learned."""
SIDES = {"right": True, "wrong": False}
EFFECT = "effect/"
"""Before the name of a benchmark, a column of ledger.parquet."""
TOKENS = "tokens.parquet"
KINDS = ("format", "reasoning", "answer", "end")
OF = ["setting", "arm", "stage", "source"]
COLUMNS = [*OF, "account", "right", "wrong", "took", "gave", "value", "value_low", "value_high", "replicates", "error"]
TOKEN_COLUMNS = [*OF, "kind", "tokens", "prior", "prior_low", "prior_high", "target", "replicates"]


def ledger_table(studies: Sequence[FinishedStudy], every: Sequence[Answers]) -> pd.DataFrame:
    """One row a setting, arm, stage and account, the last one `measured`, which the others sum to: change of the prior
    benchmarks' log-likelihood (nats per token, mean over benchmarks and replicates, with its 95 % interval over these);
    of samples, `right` and `wrong` apart, and what single ones took and gave; error, the share of the benchmarks'
    changes that the closure misses."""
    found = [row for run, answers in _accounted(studies, every) for row in _rows(run, answers)]
    if not found:
        return pd.DataFrame(columns=COLUMNS)
    return over_replicates(found, [*OF, "account"], ["value"], ["right", "wrong", "took", "gave", "error"])[COLUMNS]


def token_table(studies: Sequence[FinishedStudy], every: Sequence[Answers]) -> pd.DataFrame:
    """One row a setting, arm, stage and kind of token (`KINDS`), means over replicates: tokens that a training learned
    from, and what they did to the prior (mean over all that the stage does not learn, with its 95 % interval) and to
    its target, in nats per token of these."""
    found = [row for run, answers in _accounted(studies, every) if has_tokens(run) for row in _kinds(run, answers)]
    if not found:
        return pd.DataFrame(columns=TOKEN_COLUMNS)
    return over_replicates(found, [*OF, "kind"], ["prior"], ["tokens", "target"])[TOKEN_COLUMNS]


def over_replicates(
    found: list[dict[str, Any]], keys: list[str], measures: list[str], others: list[str]
) -> pd.DataFrame:
    """Means over replicates; the measures with Student's interval, none of one replicate."""
    grouped = pd.DataFrame(found).groupby(keys, sort=False)
    means = grouped[[*measures, *others]].mean().assign(replicates=grouped.size())
    half = grouped[measures].sem().mul(stats.t.ppf(0.975, means["replicates"] - 1), axis=0)
    ends = {f"{name}_low": means[name] - half[name] for name in measures}
    ends |= {f"{name}_high": means[name] + half[name] for name in measures}
    return means.assign(**ends).reset_index()


def prior_effects(rows: pd.DataFrame, answers: Answers) -> np.ndarray:
    """Of every row of a ledger what it did to the prior, in the mean over benchmarks (rows,)."""
    effects = [name for name in rows.columns if name.startswith(EFFECT)]
    prior = [name for name in effects if answers.role(name.removeprefix(EFFECT)) == "prior"]
    return rows[prior].to_numpy().mean(axis=1)


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
    effect = prior_effects(rows, answers)
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
    for index, (name, part) in enumerate(parts.items()):
        own = effect[phase == index]
        sides = {"took": float(own[own < 0].sum()), "gave": float(own[own > 0].sum())}
        yield about | {"account": name, "value": sum(part.values())} | part | sides
    others = {
        "KL penalty": sums["penalty"],
        "weight decay": sums["decay"],
        "rounding": sums["rounding"],
        "curvature": sums["curvature"],
        "measured": sums["measured"],
    }
    nobody = dict.fromkeys(("right", "wrong", "took", "gave"), np.nan)
    for name, value in others.items():
        yield about | {"account": name, "value": float(value)} | nobody
