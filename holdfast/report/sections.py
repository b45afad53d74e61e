"""What each section of the page shows, as the templates read it: rows of the analysis' tables, words, examples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from holdfast.analysis.influence import PREDICTIONS
from holdfast.analysis.study import Analysis
from holdfast.config.jobs import Compare, FinishedStudy
from holdfast.config.targets import Detection, Jigsaw
from holdfast.report import examples, influential, verdicts
from holdfast.report.drawing import one

BASE = "base"
EXAMPLES = 4
"""Settings whose answers are shown."""
GRIDS = 3
"""With more settings than this, their verdicts are folded away."""
Row = dict[str, Any]


def rows(frame: pd.DataFrame) -> list[Row]:
    """Of a table, with None where there is no number."""
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


def arms_section(analysis: Analysis) -> Row:
    """The table of arms, each setting's base first, and what stands around it."""
    arms, base = analysis.arms, analysis.base
    table: list[Row] = []
    for setting, own in arms.groupby("setting", sort=False, observed=True):
        table += [_base_row(base[base.setting == setting], str(setting)), *rows(own)]
    passes = [n.removeprefix("pass_at_") for n in arms.columns if n.startswith("pass_at_") and n.count("_") == 2]
    asked = [int(arms[name].max()) if len(arms) else 0 for name in ("questions", "questions_prior")]
    return {
        "arms": table,
        "passes": [k for k in passes if arms[f"pass_at_{k}"].notna().any()],
        "drifts": bool(arms.kl.notna().any()),
        "covers": " / ".join(dict.fromkeys(arms.covers)),
        "questions": f"{asked[0]} target and {asked[1]} prior questions",
        "chance": one(base[base.role == "target"].chance),
        "prior_chance": one(base[base.benchmark == "mean"].chance),
        "alarms": rows(analysis.tables.alarms),
    }


def _base_row(base: pd.DataFrame, setting: str) -> Row:
    target = base[base.role == "target"].filter(regex="^(score|accuracy)")
    prior = base[base.benchmark == "mean"].filter(like="accuracy")
    prior = prior.rename(columns=lambda name: name.replace("accuracy", "prior"))
    row: Row = {"setting": setting, "arm": BASE, "replicates": None}
    return {key: value for own in (row, *rows(target)[:1], *rows(prior)[:1]) for key, value in own.items()}


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
        place, shown = next(((p, g) for p in verdicts.PLACES if (g := verdicts.grid(verdicts.at(own, p)))), (None, {}))
        yield {
            "title": setting if several else "",
            "sentences": verdicts.sentences(own),
            "names": list(dict.fromkeys(name for row in own for name in (row["a"], row["b"]))),
            "grid": {} if verdicts.alone(own) else shown,
            "grid_title": verdicts.NAMES[place] if place else "",
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
    base = analysis.base[(analysis.base.role == "prior") & (analysis.base.benchmark != "mean")]
    first = {row["benchmark"]: row for row in rows(base.drop_duplicates("benchmark"))}
    return {"names": list(dict.fromkeys(prior.benchmark)), "base": first, "rows": _by_arm(prior)}


def _by_arm(frame: pd.DataFrame) -> list[Row]:
    """One row a setting and arm, with a cell for every benchmark."""
    return [
        {"setting": setting, "arm": arm, "cells": {row["benchmark"]: row for row in rows(own)}}
        for (setting, arm), own in frame.groupby(["setting", "arm"], sort=False, observed=True)
    ]


def example_section(job: Compare, settings: dict[str, FinishedStudy]) -> Row:
    """Answers of the first study of each setting."""
    groups = []
    for setting, study in list(settings.items())[:EXAMPLES]:
        answers = examples.last_answers(study)
        own = {"asked": examples.asked(study, answers, job.seed), "lost": examples.lost(study, answers, job.seed)}
        groups.append({"setting": setting} | own)
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
    """Means over replicates of what was measured and predicted."""
    grouped = changes.groupby(["setting", "arm", "benchmark"], sort=False, observed=True)
    return _by_arm(grouped[["measured", *PREDICTIONS]].mean().reset_index())


SOURCE_MEASURES = {
    **{"perplexity_start": "perplexity", "norm_per_token": "magnitude", "kernel_per_token": "kernel"},
    **{"coherence": "coherence", "cosine": "direction ↑", "dot": "dot product ↑", "positive": "positive ↑"},
}


def _sources(measures: pd.DataFrame) -> list[Row]:
    """By setting, arm and source, each measure where training begins; means over prior benchmarks."""
    start = measures[(measures.step == 0) & (measures.stage == 0) & (measures.role != "target")]
    start = start[start.measure.isin(SOURCE_MEASURES)]
    means = start.groupby(["setting", "arm", "source", "measure"], sort=False, observed=True)["value"].mean()
    return rows(means.unstack("measure").reset_index())
