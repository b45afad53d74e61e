"""Ledgers: what lost and gained the prior, by account, phase, right and wrong samples, source, kind of token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

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
REPLAY = "replay"
"""In the column `source`, of an old question that a stage learned again."""
TOKENS = "tokens.parquet"
KINDS = ("format", "reasoning", "answer", "end")
OF = ["setting", "arm", "stage", "source"]
ERRORS = ["error", "worst"]
VALUE = ["value", "value_low", "value_high", "replicates"]
COLUMNS = [*OF, "account", "right", "wrong", "took", "gave", *VALUE, *ERRORS]
SOURCE_COLUMNS = [*OF, "of", "samples", "took", "gave", *VALUE, *ERRORS]
TOKEN_COLUMNS = [*OF, "kind", "tokens", "prior", "prior_low", "prior_high", "target", "replicates", *ERRORS]
PARTS = ("samples", "clipping", "penalty", "decay", "rounding", "curvature")
BENCHMARK_COLUMNS = [
    *OF,
    "benchmark",
    "role",
    *PARTS,
    "measured",
    "measured_low",
    "measured_high",
    "replicates",
    "error",
]


class LedgerTables(NamedTuple):
    """What all ledgers say."""

    accounts: pd.DataFrame
    """`ledger_table`."""
    benchmarks: pd.DataFrame
    """`benchmark_table`."""
    sources: pd.DataFrame
    """`source_table`."""
    tokens: pd.DataFrame
    """`token_table`; empty where no ledger goes down to tokens."""


def ledger_tables(studies: Sequence[FinishedStudy], every: Sequence[Answers]) -> LedgerTables | None:
    """Of the ledgers of the arms that finished, whatever asked for them; None where there are none."""
    accounts = ledger_table(studies, every)
    if not len(accounts):
        return None
    others = (table(studies, every) for table in (benchmark_table, source_table, token_table))
    return LedgerTables(accounts, *others)


def ledger_table(studies: Sequence[FinishedStudy], every: Sequence[Answers]) -> pd.DataFrame:
    """One row a setting, arm, stage and account, the last one `measured`, which the others sum to: change of the prior
    benchmarks' log-likelihood (nats per token, mean over benchmarks and replicates, with its 95 % interval over these);
    of samples, `right` and `wrong` apart, and what single ones took and gave; error, the share of the benchmarks'
    changes that the closure misses, and worst, that of the single benchmark where it is largest."""
    found = [row for run, answers in _accounted(studies, every) for row in _rows(run, answers)]
    if not found:
        return pd.DataFrame(columns=COLUMNS)
    return over_replicates(found, [*OF, "account"], ["value"], ["right", "wrong", "took", "gave", *ERRORS])[COLUMNS]


def benchmark_table(studies: Sequence[FinishedStudy], every: Sequence[Answers]) -> pd.DataFrame:
    """One row a setting, arm, stage and benchmark, means over replicates: role, and what sums to `measured` (nats per
    token, with its 95 % interval): samples, penalty, decay, rounding, curvature; `clipping`, the part of samples that
    clipping took away; error, the share of its change that the closure misses."""
    found = [row for run, answers in _accounted(studies, every) for row in _benchmarks(run, answers)]
    if not found:
        return pd.DataFrame(columns=BENCHMARK_COLUMNS)
    return over_replicates(found, [*OF, "benchmark", "role"], ["measured"], [*PARTS, "error"])[BENCHMARK_COLUMNS]


def source_table(studies: Sequence[FinishedStudy], every: Sequence[Answers]) -> pd.DataFrame:
    """One row a setting, arm, stage and source of samples, `of`: the stage's own, or `REPLAY`; how many samples its
    steps took, value (what they did to the prior, as in `ledger_table`), and what single ones took and gave."""
    found = [row for run, answers in _accounted(studies, every) for row in _sources(run, answers)]
    if not found:
        return pd.DataFrame(columns=SOURCE_COLUMNS)
    return over_replicates(found, [*OF, "of"], ["value"], ["samples", "took", "gave", *ERRORS])[SOURCE_COLUMNS]


def token_table(studies: Sequence[FinishedStudy], every: Sequence[Answers]) -> pd.DataFrame:
    """One row a setting, arm, stage and kind of token (`KINDS`), means over replicates: tokens that a training learned
    from, and what they did to the prior (mean over its benchmarks, with its 95 % interval) and to the stage's target,
    in nats per token of these; error and worst, as in `ledger_table`."""
    found = [row for run, answers in _accounted(studies, every) if has_tokens(run) for row in _kinds(run, answers)]
    if not found:
        return pd.DataFrame(columns=TOKEN_COLUMNS)
    return over_replicates(found, [*OF, "kind"], ["prior"], ["tokens", "target", *ERRORS])[TOKEN_COLUMNS]


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


def prior_effects(rows: pd.DataFrame, role: Callable[[str], str]) -> np.ndarray:
    """Of every row of a ledger what it did to the prior, in the mean over benchmarks (rows,)."""
    effects = [name for name in rows.columns if name.startswith(EFFECT)]
    prior = [name for name in effects if role(name.removeprefix(EFFECT)) == "prior"]
    return rows[prior].to_numpy().mean(axis=1)


def closure_errors(closure: pd.DataFrame, answers: Answers) -> dict[str, float]:
    """The shares of its changes that a closure.parquet misses: error of the prior's benchmarks together, and worst."""
    own = closure[[answers.role(name) == "prior" for name in closure["benchmark"]]]
    single = [_missed(rows) for _, rows in own.groupby("benchmark")]
    return {"error": _missed(own), "worst": max((one for one in single if np.isfinite(one)), default=np.nan)}


def has_tokens(run: RunRecord) -> bool:
    """Whether a ledger says what single tokens did."""
    return (Path(run.path) / TOKENS).is_file()


def _accounted(studies: Sequence[FinishedStudy], every: Sequence[Answers]) -> Iterator[tuple[RunRecord, Answers]]:
    for study, answers in zip(studies, every, strict=True):
        yield from ((run, answers) for run in study.runs if run.kind == "ledger" and run.arm in answers.arms)


def _tables(run: RunRecord) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What samples did, and how it closes."""
    rows, closure = (pq.read_table(Path(run.path) / f"{name}.parquet").to_pandas() for name in ("ledger", "closure"))
    return rows, closure


def _about(run: RunRecord, answers: Answers, rows: pd.DataFrame) -> dict[str, Any]:
    """Whose ledger it is; `source` is the stage's own."""
    own = rows["source"][rows["source"] != REPLAY]
    return answers.place.columns | whose(run) | {"source": own.iloc[0] if len(own) else REPLAY}


def _missed(closure: pd.DataFrame) -> float:
    """The share of changes that the closure misses; NaN where nothing changed."""
    missed, changed = (float(closure[name].abs().sum()) for name in ("curvature", "measured"))
    return missed / changed if changed else float("nan")


def _sides(effect: np.ndarray) -> dict[str, float]:
    return {"took": float(effect[effect < 0].sum()), "gave": float(effect[effect > 0].sum())}


def _benchmarks(run: RunRecord, answers: Answers) -> Iterator[dict[str, Any]]:
    """Of one run."""
    rows, closure = _tables(run)
    about = _about(run, answers, rows)
    for name, own in closure.groupby("benchmark", sort=False):
        sums = own[[*PARTS[1:], "measured"]].sum().to_dict() | {"samples": rows[f"{EFFECT}{name}"].sum()}
        yield about | {"benchmark": name, "role": answers.role(str(name)), "error": _missed(own)} | sums


def _sources(run: RunRecord, answers: Answers) -> Iterator[dict[str, Any]]:
    """Of one run."""
    rows, closure = _tables(run)
    about = _about(run, answers, rows) | closure_errors(closure, answers)
    effect = prior_effects(rows, answers.role)
    for source in rows["source"].unique():
        own = effect[(rows["source"] == source).to_numpy()]
        yield about | {"of": source, "samples": len(own), "value": float(own.sum())} | _sides(own)


def _kinds(run: RunRecord, answers: Answers) -> Iterator[dict[str, Any]]:
    """Of one run."""
    table = pq.read_table(Path(run.path) / TOKENS, columns=["kind", "prior", "target"]).to_pandas()
    sums = table.groupby("kind")[["prior", "target"]].sum().assign(tokens=table["kind"].value_counts())
    rows, closure = _tables(run)
    about = _about(run, answers, rows) | closure_errors(closure, answers)
    yield from (about | {"kind": kind} | sums.loc[kind].to_dict() for kind in KINDS if kind in sums.index)


def _rows(run: RunRecord, answers: Answers) -> Iterator[dict[str, Any]]:
    """Of one run."""
    rows, closure = _tables(run)
    prior = [name for name in closure["benchmark"].unique() if answers.role(name) == "prior"]
    effect = prior_effects(rows, answers.role)
    steps = int(rows["step"].max())
    phase = (rows["step"] - 1) * len(PHASES) // steps
    own = closure[closure["benchmark"].isin(prior)]
    sums = own.drop(columns=["benchmark", "start", "step"]).sum() / len(prior)
    about = _about(run, answers, rows) | closure_errors(closure, answers)
    parts = {
        name: {kind: float(effect[(phase == index) & (rows["correct"] == flag)].sum()) for kind, flag in SIDES.items()}
        for index, name in enumerate(PHASES)
    }
    for index, (name, part) in enumerate(parts.items()):
        yield about | {"account": name, "value": sum(part.values())} | part | _sides(effect[phase == index])
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
