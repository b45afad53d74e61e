"""What each section of the page shows, as the templates read it: rows of the analysis' tables, words, examples."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from holdfast.analysis.influence import PREDICTIONS
from holdfast.analysis.study import Analysis
from holdfast.config.jobs import Compare, FinishedStudy, Result, RunRecord
from holdfast.config.targets import Detection, Jigsaw
from holdfast.report import examples, verdicts
from holdfast.report.drawing import one
from holdfast.report.words import fact

EXAMPLES = 4
"""Settings whose answers are shown."""
GRIDS = 3
"""With more settings than this, their verdicts are folded away."""
SOURCE_MEASURES = {
    **{"perplexity_start": "perplexity", "norm_per_token": "magnitude", "kernel_per_token": "kernel"},
    **{"coherence": "coherence", "cosine": "direction ↑", "dot": "dot product ↑", "positive": "positive ↑"},
}
SAMPLED = ["model", "step", "temperature", "seed"]
Row = dict[str, Any]


def rows(frame: pd.DataFrame) -> list[Row]:
    """Of a table, with None where there is no number."""
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


def arms_section(analysis: Analysis) -> Row:
    """The table of arms, each setting's base first, and what stands around it."""
    arms, base = analysis.arms, analysis.base
    table: list[Row] = []
    for setting, own in arms.groupby("setting", sort=False, observed=True):
        target, *_, mean = rows(base[base.setting == setting])
        for end in ("", "_low", "_high"):
            target |= {f"prior{end}": mean[f"accuracy{end}"], f"unparsed{end}": mean[f"unparsed{end}"]}
        table += [target | {"arm": "base", "replicates": None}, *rows(own)]
    measured = arms.dropna(axis=1, how="all").columns
    asked = [int(arms[name].max()) if len(arms) else 0 for name in ("questions", "questions_prior")]
    return {
        "arms": table,
        "passes": [name[8:] for name in measured if name.startswith("pass_at_") and name[8:].isdigit()],
        "drifts": "kl" in measured,
        "covers": " / ".join(arms.covers.unique()),
        "questions": f"{asked[0]} target and {asked[1]} prior questions",
        "chance": one(base[base.role == "target"].chance),
        "prior_chance": one(base[base.benchmark == "mean"].chance),
        "alarms": rows(analysis.tables.alarms),
    }


def verdict_section(analysis: Analysis) -> Row:
    """Sentences, a grid of all pairs, and the table behind them."""
    found = rows(analysis.verdicts)
    table = [row | {"measured": verdicts.NAMES[row["measure"], row["at"]]} for row in found]
    several = len({row["setting"] for row in found}) > 1
    return {
        "alone": bool(found) and verdicts.alone(found),
        "rows": [row | {"needed": verdicts.needed(row)} for row in table],
        "settings": several,
        "groups": list(_groups(found, several)),
    }


def _groups(found: list[Row], several: bool) -> Iterator[Row]:
    """Of every factor; then of every setting, whose grid is of the first measure that has differences."""
    for factor in dict.fromkeys(row["factor"] for row in found if row["factor"] != "arm"):
        said = verdicts.level_sentences([row for row in found if row["factor"] == factor])
        yield {"title": factor, "sentences": said, "grid": {}, "fold": False}
    arms = [row for row in found if row["factor"] == "arm"]
    settings = dict.fromkeys(row["setting"] for row in arms)
    for setting in settings:
        own = [row for row in arms if row["setting"] == setting]
        grids = ((name, verdicts.grid(verdicts.at(own, place))) for place, name in verdicts.NAMES.items())
        measure, grid = next(((name, grid) for name, grid in grids if grid), ("", {}))
        yield {
            "title": setting if several else "",
            "sentences": verdicts.sentences(own),
            "names": list(dict.fromkeys(row[arm] for row in own for arm in ("a", "b"))),
            "grid": {} if verdicts.alone(own) else grid,
            "grid_title": measure,
            "fold": len(settings) > GRIDS,
        }


def benchmark_section(analysis: Analysis) -> Row:
    """Forgetting by prior benchmark."""
    prior = analysis.benchmarks[analysis.benchmarks.role == "prior"]
    base = analysis.base[(analysis.base.role == "prior") & (analysis.base.benchmark != "mean")]
    first = {row["benchmark"]: row for row in rows(base.drop_duplicates("benchmark"))}
    return {"names": list(prior.benchmark.unique()), "base": first, "rows": _by_arm(prior)}


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
    changes = found.changes.groupby(["setting", "arm", "benchmark"], sort=False, observed=True)
    # Where training begins, over prior benchmarks.
    start = found.measures[(found.measures.step == 0) & (found.measures.stage == 0) & (found.measures.role != "target")]
    start = start[start.measure.isin(list(SOURCE_MEASURES))]
    sources = start.groupby(["setting", "arm", "source", "measure"], sort=False, observed=True)["value"].mean()
    return {
        "sentence": _predicts(agreement),
        "agreement": [row for row in agreement if not row["contradicted"]],
        "contradicted": [row for row in agreement if row["contradicted"]],
        "changes": _by_arm(changes[["measured", *PREDICTIONS]].mean().reset_index()),
        "benchmarks": list(found.changes.benchmark.unique()),
        "sources": rows(sources.unstack("measure").reset_index()),
        "shown": {name: title for name, title in SOURCE_MEASURES.items() if name in set(found.measures.measure)},
        "rankings": examples.rankings(next(iter(settings.values()))),
        "notes": rows(found.notes.drop_duplicates(["arm", "note", "text"])),
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


def run_section(job: Compare) -> Row:
    """The runs of all studies, those that several share once: their notes, and where completions were sampled."""
    runs = {run.path: run for study in job.studies for run in study.runs}.values()
    return {
        "samples": [_samples(run) for run in runs if run.kind == "sample"],
        "notes": list(dict.fromkeys(note for run in runs for note in _notes(run))),
        "other_seconds": sum(run.seconds for run in runs if run.kind != "train"),
    }


def _notes(run: RunRecord) -> Iterator[tuple[str, str, str]]:
    """Run, fact, value."""
    file = Path(run.path) / "result.json"
    notes = Result.model_validate_json(file.read_text()).notes if file.is_file() else {}
    name = " ".join(filter(None, [run.kind, run.arm, f"replicate {run.replicate}" if run.replicate > 1 else ""]))
    yield from ((name, key.replace("_", " "), fact(value)) for key, value in notes.items() if key != "flips")


def _samples(run: RunRecord) -> Row:
    """Where the completions that an arm learned from were sampled."""
    table = pq.read_table(Path(run.path) / "samples.parquet", columns=[*SAMPLED, "accuracy", "id"]).to_pandas()
    found = {"completions": len(table), "questions": table.id.nunique(), "right": table.accuracy.mean()}
    found |= {name: sorted(table[name].unique().tolist()) for name in SAMPLED}
    return {"arm": run.arm, "replicate": run.replicate} | found
