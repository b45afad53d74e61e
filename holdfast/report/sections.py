"""What each section of the page shows, as the templates read it: rows of the analysis' tables, words, examples."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from holdfast.analysis.study import Analysis
from holdfast.config.jobs import Compare, FinishedStudy
from holdfast.config.targets import Detection, Jigsaw
from holdfast.report import examples, influential, verdicts

BASE = "base"
EXAMPLES = 4
"""Settings whose answers are shown."""
GRIDS = 3
"""With more settings than this, their verdicts are folded away."""
Row = dict[str, Any]


def rows(frame: pd.DataFrame) -> list[Row]:
    """Of a table, with None where there is no number."""
    found = frame.to_dict("records")
    return [{name: None if _missing(value) else value for name, value in row.items()} for row in found]


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def arms_section(analysis: Analysis) -> Row:
    """The table of arms, each setting's base first, and what stands around it."""
    arms, trainings = analysis.arms, analysis.tables.trainings
    base, target, prior = analysis.base, _of(analysis.base, "target"), _mean(analysis.base)
    table: list[Row] = []
    for setting, own in arms.groupby("setting", sort=False, observed=True):
        if len(base):
            table.append(_base_row(target[target.setting == setting], prior[prior.setting == setting], str(setting)))
        table += rows(own)
    passes = [n.removeprefix("pass_at_") for n in arms.columns if n.startswith("pass_at_") and n.count("_") == 2]
    alarms = analysis.tables.alarms.rename(columns={"alarm": "name"})
    return {
        "arms": table,
        "passes": [k for k in passes if arms[f"pass_at_{k}"].notna().any()],
        "drifts": bool(arms.kl.notna().any()),
        "covers": " / ".join(dict.fromkeys(arms.covers)),
        "questions": _questions(arms),
        "chance": _first(target.chance),
        "prior_chance": _first(prior.chance),
        "alarms": rows(alarms),
        "cost": _cost(trainings),
    }


def _of(base: pd.DataFrame, role: str) -> pd.DataFrame:
    return base[(base.role == role) & (base.benchmark != "mean")]


def _mean(base: pd.DataFrame) -> pd.DataFrame:
    return base[base.benchmark == "mean"]


def _base_row(target: pd.DataFrame, prior: pd.DataFrame, setting: str) -> Row:
    row: Row = {"setting": setting, "arm": BASE, "replicates": None}
    for frame, names in ((target, {"score": "score", "accuracy": "accuracy"}), (prior, {"accuracy": "prior"})):
        for own in rows(frame)[:1]:
            for measure, shown in names.items():
                row |= {f"{shown}{end}": own.get(f"{measure}{end}") for end in ("", "_low", "_high")}
    return row


def _first(values: pd.Series) -> float | None:
    """The one value of all settings; None where they differ."""
    known = values.dropna().unique()
    return float(known[0]) if len(known) == 1 else None


def _questions(arms: pd.DataFrame) -> str:
    if not len(arms):
        return ""
    target, prior = int(arms.questions.max()), int(arms.questions_prior.max())
    return f"{target} target and {prior} prior questions"


def _cost(trainings: pd.DataFrame) -> list[Row]:
    """By setting and arm: trainings, their steps, seconds of one of them and of all."""
    if not len(trainings):
        return []
    keys = ["setting", "arm"]
    each = trainings.groupby([*keys, "study", "replicate"], sort=False, observed=True)[["seconds", "steps"]].sum()
    grouped = each.groupby(level=keys, sort=False, observed=True)
    table = grouped.agg(seconds=("seconds", "mean"), total=("seconds", "sum"), steps=("steps", "max"))
    return rows(table.assign(replicates=grouped.size()).reset_index())


def verdict_section(analysis: Analysis) -> Row:
    """Sentences, a grid of all pairs, and the table behind them."""
    found = rows(analysis.verdicts)
    several = len({row["setting"] for row in found}) > 1
    groups = [*_factor_groups(found), *_arm_groups(found, several)]
    table = [
        row | {"measured": verdicts.NAMES[row["measure"], row["at"]], "needed": verdicts.needed(row)} for row in found
    ]
    return {"alone": bool(found) and verdicts.alone(found), "rows": table, "settings": several, "groups": groups}


def _arm_groups(found: list[Row], several: bool) -> Iterator[Row]:
    """Of every setting; the grid is of the first measure that has differences."""
    settings = list(dict.fromkeys(row["setting"] for row in found if row["factor"] == "arm"))
    for setting in settings:
        own = [row for row in found if row["setting"] == setting and row["factor"] == "arm"]
        place, shown = next(((p, g) for p in verdicts.PLACES if (g := verdicts.grid(verdicts.at(own, p)))), ("", {}))
        yield {
            "title": setting if several else "",
            "sentences": verdicts.sentences(own),
            "names": list(dict.fromkeys(name for row in own for name in (row["a"], row["b"]))),
            "grid": {} if verdicts.alone(own) else shown,
            "grid_title": verdicts.NAMES.get(place, ""),
            "fold": len(settings) > GRIDS,
        }


def _factor_groups(found: list[Row]) -> Iterator[Row]:
    for factor in dict.fromkeys(row["factor"] for row in found if row["factor"] != "arm"):
        own = [row for row in found if row["factor"] == factor]
        said = verdicts.level_sentences(own)
        yield {"title": factor, "sentences": said, "names": [], "grid": {}, "grid_title": "", "fold": False}


def benchmark_section(analysis: Analysis) -> Row:
    """Forgetting by prior benchmark."""
    prior = analysis.benchmarks[analysis.benchmarks.role == "prior"]
    base = _of(analysis.base, "prior")
    lines = []
    for (setting, arm), own in prior.groupby(["setting", "arm"], sort=False, observed=True):
        lines.append({"setting": setting, "arm": arm, "cells": {row["benchmark"]: row for row in rows(own)}})
    return {
        "names": list(dict.fromkeys(prior.benchmark)),
        "chance": {row["benchmark"]: row["chance"] for row in rows(base)},
        "base": {row["benchmark"]: row["accuracy"] for row in rows(base.drop_duplicates("benchmark"))},
        "rows": lines,
    }


def example_section(job: Compare, settings: dict[str, FinishedStudy]) -> Row:
    """Answers of the first study of each setting."""
    groups = []
    for setting, study in list(settings.items())[:EXAMPLES]:
        answers = examples.last_answers(study)
        groups.append(
            {
                "setting": setting,
                "asked": examples.asked(study, answers, job.seed),
                "lost": examples.lost(study, answers, job.seed),
            }
        )
    targets = [study.study.target for study in settings.values()]
    return {
        "examples": groups,
        "puzzles": any(isinstance(target, Jigsaw) and target.question == "full" for target in targets),
        "boxed": any(isinstance(target, Detection) for target in targets),
        "replicated": any(study.study.replicates > 1 for study in settings.values()),
    }


def influence_section(analysis: Analysis, settings: dict[str, FinishedStudy]) -> Row | None:
    """One sentence, then what is behind it; predictions that what happened contradicts are kept apart."""
    found = analysis.influence
    if found is None:
        return None
    agreement = rows(found.agreement)
    notes = found.notes.drop_duplicates(["arm", "note", "text"]) if len(found.notes) else found.notes
    return {
        "sentence": _predicts(agreement),
        "agreement": [row for row in agreement if not row["contradicted"]],
        "contradicted": [row for row in agreement if row["contradicted"]],
        "changes": _changes(found.changes),
        "benchmarks": list(dict.fromkeys(found.changes.benchmark)),
        "sources": _sources(found.measures),
        "shown": {name: title for name, title in SOURCE_MEASURES.items() if name in set(found.measures.measure)},
        "rankings": [ranking for study in list(settings.values())[:1] for ranking in influential.rankings(study)],
        "notes": rows(notes),
    }


def _predicts(agreement: list[Row]) -> str:
    best = next((r for r in agreement if (r["prediction"], r["against"]) == ("trapezoid", "measured")), None)
    if best is None or best["pearson"] is None:
        return "Too little was traced to say whether influence predicts what was forgotten."
    strength = best["pearson"]
    words = "predicts" if strength >= 0.7 else "partly predicts" if strength > 0.3 else "does not predict"
    interval = f" ({best['pearson_low']:.2f} to {best['pearson_high']:.2f})" if best["pearson_low"] is not None else ""
    return (
        f"On this study influence {words} what happened to prior knowledge: along the path that the weights took, "
        f"predicted and measured change of the right answers’ likelihood correlate with {strength:.2f}{interval} "
        f"over {best['points']} pairs of a training and a benchmark, and agree in sign in "
        f"{100 * best['sign']:.0f} % of them."
    ).replace("-", "−")


def _changes(changes: pd.DataFrame) -> list[Row]:
    """By setting and arm: means over replicates of what was measured and predicted, a cell a benchmark."""
    values = ["measured", "trapezoid", "first_order", "tracin", "adam_tracin"]
    means = changes.groupby(["setting", "arm", "benchmark"], sort=False, observed=True)[values].mean().reset_index()
    found = []
    for (setting, arm), own in means.groupby(["setting", "arm"], sort=False, observed=True):
        found.append({"setting": setting, "arm": arm, "cells": {row["benchmark"]: row for row in rows(own)}})
    return found


SOURCE_MEASURES = {
    "perplexity_start": "perplexity",
    "norm_per_token": "magnitude",
    "kernel_per_token": "kernel",
    "coherence": "coherence",
    "cosine": "direction ↑",
    "dot": "dot product ↑",
    "positive": "positive ↑",
}


def _sources(measures: pd.DataFrame) -> list[Row]:
    """By setting and arm: each measure where training begins, mean over prior benchmarks."""
    start = measures[(measures.step == measures.step.min()) & (measures.role != "target")]
    names = [name for name in start.measure.unique() if name in SOURCE_MEASURES]
    start = start[start.measure.isin(names)]
    means = start.groupby(["setting", "arm", "source", "measure"], sort=False, observed=True)["value"].mean()
    found = []
    for key, own in means.groupby(level=[0, 1, 2], sort=False, observed=True):
        names = dict(zip(("setting", "arm", "source"), key, strict=True))
        found.append(names | {"of": own.droplevel([0, 1, 2]).to_dict()})
    return found
