"""Influence: does it predict what was forgotten, and how large are a source's gradients and which way do they point."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from scipy import stats

from holdfast.analysis.answers import Answers
from holdfast.analysis.table import journal, whose
from holdfast.config.results import FinishedStudy, RunRecord

SUMS = ("tracin", "adam_tracin")
PREDICTIONS = ("trapezoid", "first_order", *SUMS)
"""`trapezoid` and `first_order` go along the path that the weights took; the others are sums over samples."""


@dataclass(frozen=True)
class InfluenceTables:
    """What was traced. `source` is where a stage's completions come from (`grpo` for its own rollouts)."""

    changes: pd.DataFrame
    """One row a traced training and benchmark: study, setting, draw, arm, replicate, stage, source, benchmark, role,
    questions; change of its log-likelihood (nats per token, over the whole training), measured, and predicted by each
    of `PREDICTIONS` (NaN where unknown); forgetting (accuracy lost at the end of the arm)."""
    agreement: pd.DataFrame
    """Predictions against what was measured, over all prior benchmarks, arms and replicates: prediction, against
    (measured | forgetting, of which the predicted change should be the negative); measures pearson and sign (share of
    changes with the predicted sign), whose intervals are a jackknife over trainings; points, trainings; contradicted
    (pearson is not positive)."""
    measures: pd.DataFrame
    """One row a source, benchmark, measure and step: `OF_MEASURE` and step (of the stage); value, value_low and
    value_high, which cover replicates (the same prompts; none of one replicate), and replicates. docs/metrics.md has
    the measures' names; benchmark and role are "" where a measure is of the source alone."""
    notes: pd.DataFrame
    """What the linear form leaves out: study, arm, replicate, stage, note, text."""


WHOSE = ("study", "arm", "replicate", "stage")
OF_MEASURE = ("setting", "arm", "stage", "source", "benchmark", "role", "measure")
PATH = ("measured", "first_order", "trapezoid")


def influence_tables(studies: Sequence[FinishedStudy], every: Sequence[Answers]) -> InfluenceTables | None:
    """What the influence runs of the arms that finished came to; None where there are none."""
    traced = [
        _traced(run, answers)
        for study, answers in zip(studies, every, strict=True)
        for arm in answers.arms
        for run in study.runs
        if run.kind == "influence" and run.arm == arm
    ]
    if not traced:
        return None
    changes, logged, notes = (pd.concat(frames, ignore_index=True) for frames in zip(*traced, strict=True))
    return InfluenceTables(
        changes=changes,
        agreement=pd.DataFrame(_agreements(changes)),
        measures=_measures(logged),
        notes=notes[[*WHOSE, "note", "text"]],
    )


def _traced(run: RunRecord, answers: Answers) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Of one run: its changes; benchmark, measure, step and value of what it logged; its notes."""
    notes = dict(json.loads((Path(run.path) / "result.json").read_text())["notes"])
    about = answers.place.columns | whose(run) | {"source": str(notes.pop("source", ""))}
    logged = logged_measures(run)
    changes = pd.DataFrame([about | row for row in _changes(run, answers, logged)])
    logged = logged.assign(**about, role=[answers.role(name) for name in logged["benchmark"]])
    said = pd.DataFrame([(note, str(text)) for note, text in notes.items()], columns=["note", "text"])
    return changes, logged, said.assign(**about)


def logged_measures(run: RunRecord) -> pd.DataFrame:
    """What a run logged: benchmark ("" for what is of the source alone), measure, step (of the stage), value."""
    rows = []
    for line in journal(run):
        for name, value in line.get("metrics", {}).items():
            if name.startswith("influence/"):
                benchmark, _, measure = name.split("/", 2)[2].rpartition("/")
                rows.append((benchmark, measure, line["step"], value))
    return pd.DataFrame(rows, columns=["benchmark", "measure", "step", "value"])


def _changes(run: RunRecord, answers: Answers, logged: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Summed over the stretches between checkpoints, in the mean over questions."""
    path = pq.read_table(Path(run.path) / "path.parquet").to_pandas()
    last = logged.drop_duplicates(["benchmark", "measure"], keep="last").set_index(["benchmark", "measure"])
    known = last["value"].to_dict()
    lost: dict[Any, float] = {}
    for end in answers.ends[str(run.arm)]:
        if end.replicate == run.replicate:
            before, now = (answers.means(checkpoint, "correct") for checkpoint in (answers.base, end))
            lost = dict(zip(answers.benchmarks, (before - now).tolist(), strict=True))
    for name, rows in path.groupby("benchmark", sort=False):
        questions = rows["id"].nunique()
        # A stretch that is not finite leaves no sum of the whole.
        row: dict[str, Any] = {"benchmark": name, "role": answers.role(str(name)), "questions": questions}
        row |= {kind: float(rows[kind].sum(skipna=False)) / questions for kind in PATH}
        row |= {kind: known.get((name, kind), np.nan) for kind in SUMS}
        yield row | {"forgetting": lost.get(name, np.nan)}


def _agreements(changes: pd.DataFrame) -> Iterator[dict[str, Any]]:
    prior = changes[changes["role"] == "prior"]
    training = prior.groupby(list(WHOSE), sort=False).ngroup().to_numpy()
    for prediction in PREDICTIONS:
        for against, sign in (("measured", 1.0), ("forgetting", -1.0)):
            pairs = np.stack([prior[prediction].to_numpy(float), sign * prior[against].to_numpy(float)])
            known = np.isfinite(pairs).all(0)
            if known.any():
                yield {"prediction": prediction, "against": against} | agreement(pairs[:, known], training[known])


def agreement(pairs: np.ndarray, training: np.ndarray) -> dict[str, Any]:
    """Of predicted and measured (2, points), the points of one training leaving the jackknife together.

    Pearson's r is jackknifed as atanh r. Fewer than three trainings give no interval.
    """
    groups = np.unique(training)
    parts = [pairs, *(pairs[:, training != group] for group in groups)]
    r, sign = _pearson(pairs), _same_sign(pairs)
    # At ±1 atanh has no end.
    around = _jackknife([np.arctanh(np.clip(_pearson(part), -1 + 1e-9, 1 - 1e-9)) for part in parts])
    shares = _jackknife([_same_sign(part) for part in parts])
    return {
        **{"pearson": r, "pearson_low": float(np.tanh(around[0])), "pearson_high": float(np.tanh(around[1]))},
        **{"sign": sign, "sign_low": max(shares[0], 0.0), "sign_high": min(shares[1], 1.0)},
        **{"points": pairs.shape[1], "trainings": len(groups), "contradicted": bool(np.isfinite(r) and r <= 0)},
    }


def _pearson(pairs: np.ndarray) -> float:
    if pairs.shape[1] < 3 or (np.ptp(pairs, axis=1) == 0).any():
        return float("nan")
    return float(np.corrcoef(pairs)[0, 1])


def _same_sign(pairs: np.ndarray) -> float:
    """Share of points; changes of exactly 0 have no sign."""
    signed = pairs[:, (pairs != 0).all(0)]
    return float((signed[0] * signed[1] > 0).mean()) if signed.shape[1] else float("nan")


def _jackknife(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of a statistic from its value, and its values without one group each."""
    whole, *without = values
    count = len(without)
    if count < 3 or not np.isfinite(values).all():
        return float("nan"), float("nan")
    half = float(stats.t.ppf(0.975, count - 1) * np.sqrt((count - 1) * np.var(without)))
    return whole - half, whole + half


def _measures(logged: pd.DataFrame) -> pd.DataFrame:
    """Means over trainings of what each logged at the same step; sums over the whole training stand at its end."""
    last = logged.drop_duplicates([*OF_MEASURE, "step", "study", "replicate"], keep="last")
    values = last[np.isfinite(last["value"])].groupby([*OF_MEASURE, "step"], sort=False)["value"]
    found = values.agg(value="mean", sd="std", replicates="count").reset_index()
    half = stats.t.ppf(0.975, found["replicates"] - 1) * found["sd"] / np.sqrt(found["replicates"])
    found = found.assign(value_low=found["value"] - half, value_high=found["value"] + half)
    return found[[*OF_MEASURE, "step", "value", "value_low", "value_high", "replicates"]]
