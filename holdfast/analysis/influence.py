"""Influence: does it predict what was forgotten, and how large are a source's gradients and which way do they point."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from scipy import stats

from holdfast.analysis.answers import Answers
from holdfast.analysis.estimates import Moments, estimate
from holdfast.analysis.trainings import journal
from holdfast.config.jobs import FinishedStudy, RunRecord

PREDICTIONS = ("trapezoid", "first_order", "tracin", "adam_tracin")
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


OF_MEASURE = ("setting", "arm", "stage", "source", "benchmark", "role", "measure")
PATH = ("measured", "first_order", "trapezoid")


class Traced(NamedTuple):
    """An influence run with the study that it belongs to."""

    run: RunRecord
    answers: Answers
    source: str
    notes: dict[str, Any]
    logged: pd.DataFrame
    """benchmark, measure, step, value."""

    @property
    def about(self) -> dict[str, Any]:
        """Whose it is."""
        place = self.answers.place
        return {"study": place.study, "setting": place.setting, "draw": place.draw} | {
            name: getattr(self.run, name) for name in ("arm", "replicate", "stage")
        }

    def role(self, benchmark: str) -> str:
        """Of a benchmark; nothing of what is of the source alone."""
        return ("target" if benchmark == self.answers.benchmarks[0] else "prior") if benchmark else ""


def influence_tables(studies: Sequence[FinishedStudy], every: Sequence[Answers]) -> InfluenceTables | None:
    """What the influence runs of the arms that finished came to; None where there are none."""
    runs = [
        _read(run, answers)
        for study, answers in zip(studies, every, strict=True)
        for arm in answers.arms
        for run in study.runs
        if run.kind == "influence" and run.arm == arm
    ]
    if not runs:
        return None
    changes = pd.DataFrame([row for one in runs for row in _changes(one)])
    logged = pd.concat([_about(one) for one in runs], ignore_index=True)
    notes = [
        {name: one.about[name] for name in ("study", "arm", "replicate", "stage")} | {"note": note, "text": str(text)}
        for one in runs
        for note, text in one.notes.items()
    ]
    return InfluenceTables(
        changes=changes,
        agreement=pd.DataFrame(list(_agreements(changes))),
        measures=pd.DataFrame(list(_measures(logged))),
        notes=pd.DataFrame(notes, columns=["study", "arm", "replicate", "stage", "note", "text"]),
    )


def _about(one: Traced) -> pd.DataFrame:
    """What a run logged, with whose it is."""
    roles = [one.role(name) for name in one.logged["benchmark"]]
    return one.logged.assign(**one.about, source=one.source, role=roles)


def _read(run: RunRecord, answers: Answers) -> Traced:
    notes = dict(json.loads((Path(run.path) / "result.json").read_text())["notes"])
    rows = []
    for line in journal(run):
        for name, value in line.get("metrics", {}).items():
            if name.startswith("influence/"):
                benchmark, _, measure = name.split("/", 2)[2].rpartition("/")
                rows.append((benchmark, measure, line["step"], value))
    logged = pd.DataFrame(rows, columns=["benchmark", "measure", "step", "value"])
    return Traced(run, answers, str(notes.pop("source", "")), notes, logged)


def _changes(one: Traced) -> Iterator[dict[str, Any]]:
    """Summed over the stretches between checkpoints, in the mean over questions."""
    path = pq.read_table(Path(one.run.path) / "path.parquet").to_pandas()
    sums = one.logged[one.logged["measure"].isin(PREDICTIONS)].drop_duplicates(["benchmark", "measure"], keep="last")
    known = {(row.benchmark, row.measure): row.value for row in sums.itertuples()}
    end = [end for end in one.answers.ends(str(one.run.arm)) if end.replicate == one.run.replicate]
    for name, rows in path.groupby("benchmark", sort=False):
        questions = rows["id"].nunique()
        row = one.about | {"source": one.source, "benchmark": name, "role": one.role(str(name)), "questions": questions}
        # A stretch that is not finite leaves no sum of the whole.
        row |= {kind: float(rows[kind].sum(skipna=False)) / questions for kind in PATH}
        row |= {kind: known.get((name, kind), np.nan) for kind in PREDICTIONS if kind not in PATH}
        asked = bool(end) and name in one.answers.benchmarks
        lost = one.answers.benchmark(end, str(name))["forgetting"].means[0] if asked else np.nan
        yield row | {"forgetting": float(lost)}


def _agreements(changes: pd.DataFrame) -> Iterator[dict[str, Any]]:
    prior = changes[changes["role"] == "prior"]
    training = prior.groupby(["study", "arm", "replicate", "stage"], sort=False).ngroup().to_numpy()
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
    r, sign = _pearson(pairs), _same_sign(pairs)
    groups = np.unique(training)
    without = [pairs[:, training != group] for group in groups]
    # At ±1 atanh has no end.
    around = _jackknife(np.arctanh(np.clip(r, -1 + 1e-9, 1 - 1e-9)), [_bounded_z(part) for part in without])
    shares = _jackknife(sign, [_same_sign(part) for part in without])
    return {
        **{"pearson": r, "pearson_low": float(np.tanh(around[0])), "pearson_high": float(np.tanh(around[1]))},
        **{"sign": sign, "sign_low": max(shares[0], 0.0), "sign_high": min(shares[1], 1.0)},
        **{"points": pairs.shape[1], "trainings": len(groups), "contradicted": bool(np.isfinite(r) and r <= 0)},
    }


def _pearson(pairs: np.ndarray) -> float:
    if pairs.shape[1] < 3 or np.ptp(pairs[0]) == 0 or np.ptp(pairs[1]) == 0:
        return float("nan")
    return float(np.corrcoef(pairs)[0, 1])


def _bounded_z(pairs: np.ndarray) -> float:
    return float(np.arctanh(np.clip(_pearson(pairs), -1 + 1e-9, 1 - 1e-9)))


def _same_sign(pairs: np.ndarray) -> float:
    """Share of points; changes of exactly 0 have no sign."""
    signed = pairs[:, (pairs != 0).all(0)]
    return float((signed[0] * signed[1] > 0).mean()) if signed.shape[1] else float("nan")


def _jackknife(whole: float, without: Sequence[float]) -> tuple[float, float]:
    """95 % interval of a statistic from its values without one group each."""
    count = len(without)
    if count < 3 or not np.isfinite([whole, *without]).all():
        return float("nan"), float("nan")
    scale = np.sqrt((count - 1) * np.var(without))
    half = float(stats.t.ppf(0.975, count - 1) * scale)
    return whole - half, whole + half


def _measures(logged: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Means over trainings of what each logged at the same step; sums over the whole training stand at its end."""
    for key, rows in logged.groupby([*OF_MEASURE, "step"], sort=False, observed=True):
        values = rows.drop_duplicates(["study", "replicate"], keep="last")["value"].to_numpy(float)
        known = values[np.isfinite(values)]
        if len(known):
            whole = estimate(Moments(known, np.zeros((len(known), 1)) if len(known) > 1 else np.full((1, 1), np.nan)))
            found = {"value": whole.value, "value_low": whole.low, "value_high": whole.high, "replicates": len(known)}
            yield dict(zip([*OF_MEASURE, "step"], key, strict=True)) | found
