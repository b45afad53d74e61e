"""Samples left out: what a ledger says that should do to the prior, beside what training without them did.

An arm that selects from a source is held against the arm that learned from all of it and has a ledger, replicate by
replicate. The samples that are kept fill the places of those that are not: with e_i the effect of place i of n, of
which n' held kept samples, r_j that of a replayed question, which both arms learn, and T' of T steps,
Δ = (T' / T) ((n / n') Σ_kept e_i + Σ r_j) − Σ e_i − Σ r_j. That is first order: the steps of all others stay as they
were. Where the files do not tell which places were kept, the arm's row says so and predicts nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from holdfast.analysis.answers import TEST, Answers, Checkpoint
from holdfast.analysis.ledger import ERRORS, closure_errors, over_replicates, prior_effects
from holdfast.config.methods import SFT, Selection
from holdfast.config.results import FinishedStudy, Result, RunRecord

OF = ["setting", "arm", "whole", "by"]
SHARES = ("kept", "places", "steps")
MEASURES = ("predicted", "measured", "beyond")
COLUMNS = [
    *(*OF, *SHARES),
    *(column for name in MEASURES for column in (name, f"{name}_low", f"{name}_high")),
    "replicates",
    *ERRORS,
    "untold",
]


class _Untold(Exception):
    """Why nothing can be predicted, as a clause."""


def removal_table(studies: Sequence[FinishedStudy], every: Sequence[Answers]) -> pd.DataFrame:
    """One row a setting and arm that selects: arm, whole (the arm that learned from all), by, kept (share of samples),
    places (share of the ledger's that held them, replayed questions apart), steps (of that arm's, 1 for as many);
    change of the prior benchmarks' log-likelihood against `whole`, in nats per token of their reference answers and in
    their mean: predicted by the ledger, measured on test questions, and beyond (measured less predicted), each with its
    95 % interval over replicates; none of one replicate. error and worst: what that ledger misses, as in
    `ledger.ledger_table`. untold: why replicates beside these have no prediction."""
    found = pd.DataFrame(row for one in zip(studies, every, strict=True) for row in _compared(*one))
    if not len(found):
        return pd.DataFrame(columns=COLUMNS)
    told = found[found["untold"] == ""]
    why = found.groupby(OF, sort=False)["untold"].agg(lambda said: "; ".join(filter(None, dict.fromkeys(said))))
    table = over_replicates(told.to_dict("records"), OF, [*MEASURES], [*SHARES, *ERRORS]) if len(told) else told[OF]
    table = why.reset_index().merge(table, how="left", on=OF).reindex(columns=COLUMNS)
    return table.assign(replicates=table["replicates"].fillna(0).astype(int))


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
        row = answers.place.columns | {"arm": arm, "whole": whole, "by": selection.by, "kept": selection.share}
        steps = part_end.step / whole_end.step
        try:
            predicted, places = _foreseen(run, ledger, answers, steps)
        except _Untold as why:
            yield row | {"untold": f"replicate {run.replicate}: {why}"}
            continue
        row |= closure_errors(pq.read_table(Path(ledger.path) / "closure.parquet").to_pandas(), answers)
        measured = _likelihood(answers, part_end) - _likelihood(answers, whole_end)
        row |= {"places": places, "steps": steps, "predicted": predicted, "measured": measured}
        yield row | {"beyond": measured - predicted, "untold": ""}


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


def _foreseen(run: RunRecord, ledger: RunRecord, answers: Answers, steps: float) -> tuple[float, float]:
    """The predicted change, and the share of the ledger's places that held samples which the run kept.

    Raises:
        _Untold: the files do not tell which.
    """
    rows = pq.read_table(Path(ledger.path) / "ledger.parquet").to_pandas()
    effect = prior_effects(rows, answers.role)
    # Replayed questions stand after the stage's own samples, all of which the selection measured.
    own = (rows["row"] < _measured(run)).to_numpy()
    held = rows["row"].isin(_kept(run, rows[own])).to_numpy() & own
    if not held.any():
        raise _Untold("no step of the ledger's training took a sample that was kept")
    again = effect[held].mean() * own.sum() + effect[~own].sum()
    return float(steps * again - effect.sum()), float(held.sum() / own.sum())


def _measured(run: RunRecord) -> int:
    """Of how many samples the run chose."""
    return int(Result.model_validate_json((Path(run.path) / "result.json").read_text()).notes["measured"])


def _kept(run: RunRecord, own: pd.DataFrame) -> set[int]:
    """The training rows that the run kept.

    Raises:
        _Untold: they are no rows of the ledger, or were written without numbers and their texts do not tell them.
    """
    samples = pq.read_table(Path(run.path) / "samples.parquet").to_pandas()
    learned = own.drop_duplicates("row")
    if "row" in samples:
        asked = learned.set_index("row")["prompt"]
        known = samples[samples["row"].isin(asked.index)]
        if (asked.loc[known["row"]].to_numpy() != known["id"].to_numpy()).any():
            raise _Untold("the ledger's training learned from other samples")
        return set(samples["row"])
    kept = set(zip(samples["id"], samples["completion"], strict=True))
    pairs = zip(learned["row"], learned["prompt"], learned["text"], strict=True)
    found = {row for row, *pair in pairs if tuple(pair) in kept}
    if len(found) != len(samples):
        raise _Untold(
            "its selection was written without row numbers, and the texts do not tell which samples it kept; "
            "select again with this version"
        )
    return found


def _likelihood(answers: Answers, end: Checkpoint) -> float:
    """Log-likelihood a token of the prior's test questions, in the mean over benchmarks."""
    files = answers.tables.files
    own = (files["study"] == answers.place.study) & (files["role"] == "prior")
    for name, value in end._asdict().items():
        own &= files[name] == value
    tables = [pq.read_table(path, columns=["split", "logprob"]).to_pandas() for path in files["path"][own]]
    return float(np.mean([table["logprob"][table["split"] == TEST].mean() for table in tables]))
