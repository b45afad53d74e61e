"""summary.json: the numbers of an analysis that the terminal, the model registry and other programs read."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from holdfast.analysis.contrasts import Row
from holdfast.analysis.study import Analysis
from holdfast.config.refs import content_key


def summary(analysis: Analysis) -> dict[str, Any]:
    """JSON's dictionaries and lists; what is unknown is None.

    `arms.NAME.{score,retention,forgetting}` = mean, low, high, replicates, covers. Of several settings, `settings` has
    for each what stands on top in a study.
    """
    job, tables = analysis.job, analysis.tables
    settings = {place.setting: _setting(analysis, place.setting) for place in tables.places}
    evidence = [
        *sorted([run.kind, run.arm or "", run.replicate, run.stage, run.digest] for s in job.studies for run in s.runs),
        *sorted(one.file.digest for study in job.studies for one in study.evaluated),
    ]
    content: Row = {
        "study": job.name,
        "seed": job.studies[0].study.seed,
        "data_version": job.data_version,
        "code": job.code,
        "evidence": content_key(evidence),
        "factors": job.factors,
    }
    content |= next(iter(settings.values())) if len(settings) == 1 else {"settings": settings}
    content |= {
        "verdicts": _rows(analysis.verdicts),
        "alarms": _rows(tables.alarms),
        "flips": _rows(tables.flips),
        "failed": job.failed,
    }
    if analysis.fronts is not None:
        content["fronts"] = {name: _rows(frame) for name, frame in analysis.fronts._asdict().items()}
    influence: Row = {}
    if analysis.influence is not None:
        shown = ("agreement", "changes", "measures")
        influence |= {name: _rows(getattr(analysis.influence, name)) for name in shown}
    if analysis.ledgers is not None:
        named = {"ledger": "accounts", "ledger_benchmarks": "benchmarks", "ledger_sources": "sources"}
        named |= {"tokens": "tokens"}
        influence |= {name: _rows(getattr(analysis.ledgers, table)) for name, table in named.items()}
    if influence:
        content["influence"] = influence
    if analysis.predictors is not None:
        content["predictors"] = _rows(analysis.predictors.fits)
    if len(analysis.removal):
        content["removal"] = _rows(analysis.removal)
    return _rounded(content)


def _setting(analysis: Analysis, name: str) -> Row:
    """Target, prior, base, arms, matched, frontier, differences and aliases of one setting."""
    arms, base, benchmarks, matched, frontier, verdicts, aliases = (
        frame[frame["setting"] == name] if len(frame) else frame
        for frame in (
            *(analysis.arms, analysis.base, analysis.benchmarks, analysis.matched),
            *(analysis.frontier, analysis.verdicts, analysis.aliases),
        )
    )
    every = _rows(base)
    targets, prior = ([row for row in every[:-1] if row["role"] == role] for role in ("target", "prior"))
    target, mean = targets[0], every[-1]
    sequence = _sequence(analysis, name) if len(analysis.continual) else {}
    return sequence | {
        "target": {key: target[key] for key in ("benchmark", "chance", "questions")},
        "prior": {
            "benchmarks": [row["benchmark"] for row in prior],
            "chance": {row["benchmark"]: row["chance"] for row in prior},
            "chance_mean": mean["chance"],
            "questions": mean["questions"],
        },
        "base": _metrics(_rows(base), None),
        "arms": {row["arm"]: _arm(row, _rows(benchmarks[benchmarks["arm"] == row["arm"]])) for row in _rows(arms)},
        "matched": {
            "score": matched["matched_score"].iloc[0] if len(matched) else None,
            "arms": {row["arm"]: _interval(row, "retention") | {"step": row["step"]} for row in _rows(matched)},
        },
        "frontier": _rows(frontier[frontier["on_front"]] if len(frontier) else frontier),
        "differences": _rows(verdicts[(verdicts["factor"] == "arm") & (verdicts["at"] == "end")]),
        "aliases": {row.pop("alias"): row for row in _rows(aliases.drop(columns="setting"))},
    }


def _sequence(analysis: Analysis, name: str) -> Row:
    """Of several targets: the mean matrix and the measures, by arm."""
    rows, measures = (frame[frame["setting"] == name] for frame in (analysis.courses, analysis.continual))
    ends = rows[rows["ends"] & (rows["replicate"] == "mean")]
    columns = ["stage", "learned", "benchmark", "accuracy", "score"]
    matrix = {str(arm): _rows(own[columns]) for arm, own in ends.groupby("arm", sort=False)}
    by_arm = measures.groupby("arm", sort=False)
    return {
        "sequence": {arm: {"matrix": cells, "measures": _rows(by_arm.get_group(arm))} for arm, cells in matrix.items()}
    }


def _arm(row: Row, benchmarks: list[Row]) -> Row:
    facts = ("replicates", "draws", "covers", "steps", "seconds", "alarms", "left_out")
    found: Row = {name: row[name] for name in facts}
    for name in ("score", "retention", "forgetting"):
        interval = _interval(row, name)
        found[name] = {"mean": interval.pop("value"), **interval} | {key: row[key] for key in ("replicates", "covers")}
    lost = ("forgetting", "lost_unreadable", "lost_wrong", "lost_cut", "gained")
    of_prior = {
        one["benchmark"]: {name: _interval(one, name) for name in lost} for one in benchmarks if one["role"] == "prior"
    }
    return found | _metrics(benchmarks, row) | {"benchmarks": of_prior}


def _metrics(benchmarks: list[Row], arm: Row | None) -> Row:
    """`metrics` and `intervals` under their names in MLflow."""
    named: dict[str, Row] = {}
    for row in benchmarks:
        place = f"{row['role']}/{row['benchmark']}"
        readings = ("score", "lenient") if row["role"] == "target" else ("strict",)
        named |= {f"{place}/{name}": _interval(row, name) for name in ("accuracy", *readings, "unparsed", "cut")}
        if "forgetting" in row and row["role"] == "prior":
            named[f"forgetting/{row['benchmark']}"] = _interval(row, "forgetting")
            named[f"forgetting/{row['benchmark']}/strict"] = _interval(row, "forgetting_strict")
    if arm is None:
        named |= {"retention": dict.fromkeys(("value", "low", "high"), 1.0)}
        named |= {"forgetting/mean": dict.fromkeys(("value", "low", "high"), 0.0)}
    else:
        own = {"prior/mean/accuracy": "prior", "forgetting/mean": "forgetting", "retention": "retention"}
        own |= {"prior/mean/unparsed": "unparsed", "prior/mean/cut": "cut", "kl/target": "kl"}
        passes = [name for name in arm if name.startswith("pass_at_") and name[8:].isdigit()]
        own |= {f"target/{benchmarks[0]['benchmark']}/{name}": name for name in passes}
        named |= {name: _interval(arm, column) for name, column in own.items()}
    metrics = {name: found["value"] for name, found in sorted(named.items()) if found["value"] == found["value"]}
    return {"metrics": metrics, "intervals": {name: named[name] for name in metrics}}


def _interval(row: Row, name: str) -> Row:
    return {"value": row[name], "low": row[f"{name}_low"], "high": row[f"{name}_high"]}


def _rows(frame: pd.DataFrame) -> list[Row]:
    return frame.to_dict("records")


def _rounded(value: Any) -> Any:
    """Plain JSON: floats to six significant digits, None for what is not finite."""
    if isinstance(value, dict):
        return {str(key): _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
