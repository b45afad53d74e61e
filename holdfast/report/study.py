"""One self-contained page on finished studies, and its figures: every number in it comes from the analysis."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from holdfast.analysis.influence import PREDICTIONS
from holdfast.analysis.predictors import ACROSS, ARM, NAMES, RESAMPLES
from holdfast.analysis.study import Analysis, analyse
from holdfast.analysis.summary import summary
from holdfast.benchmarks.targets.protocol import described
from holdfast.config.jobs import Compare
from holdfast.config.results import FinishedStudy, Result, RunRecord
from holdfast.journal import strict_json
from holdfast.report import drawing, examples, flips, theme, tokens, verdicts, words

EXAMPLES = 4
"""Settings whose answers are shown."""
GRIDS = 3
"""With more settings than this, their verdicts are folded away."""
LEAST = 0.005
"""Shares below would be written as 0.00."""
SOURCE_MEASURES = {
    **{"perplexity_start": "perplexity", "norm_per_token": "magnitude", "kernel_per_token": "kernel"},
    **{"coherence": "coherence", "cosine": "direction ↑", "dot": "dot product ↑", "positive": "positive ↑"},
}
SAMPLED = ["model", "step", "temperature", "seed"]
Row = dict[str, Any]


def compare(job: Compare, out: Path) -> dict[str, Any]:
    """Write report.html, summary.json, flips.parquet and figures/; returns the notes of the result.

    Raises:
        UserError: no study has finished evaluating, or two cannot be compared.
    """
    analysis = analyse(job)
    content = summary(analysis)
    (out / "summary.json").write_text(strict_json(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    headline = verdicts.headline(rows(analysis.verdicts), rows(analysis.arms))
    flipped = flips.ledger(analysis, out / flips.FILE)
    page = render(analysis, content, headline, drawing.draw(analysis, out / "figures"), flipped)
    (out / "report.html").write_text(page, encoding="utf-8")
    return {"arms": analysis.arms.arm.nunique(), "headline": headline, "report_bytes": len(page.encode())}


def render(
    analysis: Analysis, content: dict[str, Any], headline: str, drawn: dict[str, Markup], flipped: Row | None = None
) -> str:
    """The page; all text that comes from data or models is escaped by the template engine."""
    job = analysis.job
    studies: dict[str, FinishedStudy] = {}
    for place, study in zip(analysis.tables.places, job.studies, strict=True):
        studies.setdefault(place.setting, study)
    context = {
        "job": job,
        "headline": headline,
        "drawn": drawn,
        "swatches": {name: theme.swatch(one) for name, one in drawing.looks(analysis).items()},
        "studies": studies,
        "settings": [name for name in studies if name],
        "targets": [target for study in studies.values() for target in study.study.all_targets.values()],
        "verdicts": verdict_section(analysis),
        "fronts": {name: rows(part) for name, part in analysis.fronts._asdict().items()} if analysis.fronts else None,
        "benchmarks": benchmark_section(analysis),
        "examples": example_section(job, studies),
        "influence": influence_section(analysis, studies),
        "ledger": ledger_section(analysis, studies),
        "predictors": predictor_section(analysis),
        "removal": rows(analysis.removal),
        "continual": continual_section(analysis),
        "length_split": rows(analysis.length_split),
        "flipped": flipped,
        "script": Markup(flips.SCRIPT),
        "policy": flips.POLICY,
        "flips": rows(analysis.tables.flips),
        "trainings": int(analysis.arms.replicates.sum()),
        "evidence": content.get("evidence", ""),
        **arms_section(analysis),
        **run_section(job),
    }
    return _environment().get_template("page.html.j2").render(context)


def _environment() -> Environment:
    """The pages, which escape everything and know no undefined names."""
    environment = Environment(loader=PackageLoader("holdfast.report", "."), autoescape=True, undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    shown = (words.number, words.signed, words.significant, words.duration, described, verdicts.needed)
    environment.globals["LEAST"] = LEAST
    environment.filters |= {function.__name__: function for function in shown}
    return environment


def rows(frame: pd.DataFrame) -> list[Row]:
    """Of a table, with None where there is no number."""
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


def arms_section(analysis: Analysis) -> Row:
    """The table of arms, each setting's base first, and what stands around it."""
    arms, base = analysis.arms, analysis.base
    table: list[Row] = []
    for setting, own in arms.groupby("setting", sort=False, observed=True):
        every = rows(base[base.setting == setting])
        targets, mean = [row for row in every if row["role"] == "target"], every[-1]
        target = targets[0]
        if len(targets) > 1:
            # The base's interval over several targets stands in the table of each.
            unknown = {f"{name}{end}": None for name in ("score", "accuracy") for end in ("_low", "_high")}
            target |= unknown | {k: sum(row[k] for row in targets) / len(targets) for k in ("score", "accuracy")}
            read = [row["lenient"] for row in targets if row["lenient"] is not None]
            target["lenient"] = sum(read) / len(read) if len(read) == len(targets) else None
        for end in ("", "_low", "_high"):
            target |= {f"prior{end}": mean[f"accuracy{end}"]}
            target |= {f"{name}{end}": mean.get(f"{name}{end}") for name in ("unparsed", "cut")}
        table += [target | {"arm": "base", "replicates": None}, *rows(own)]
    measured = arms.dropna(axis=1, how="all").columns
    asked = [int(arms[name].max()) if len(arms) else 0 for name in ("questions", "questions_prior")]
    return {
        "arms": table,
        "passes": [name[8:] for name in measured if name.startswith("pass_at_") and name[8:].isdigit()],
        "drifts": "kl" in measured,
        "covers": " / ".join(arms.covers.unique()),
        "questions": f"{asked[0]} target and {asked[1]} prior questions",
        "chance": drawing.one(base[base.role == "target"].chance),
        "prior_chance": drawing.one(base[base.benchmark == "mean"].chance),
        "alarms": rows(analysis.tables.alarms),
    }


def verdict_section(analysis: Analysis) -> Row:
    """Sentences, a grid of all pairs, and the table behind them."""
    found = rows(analysis.verdicts)
    return {
        "alone": bool(found) and verdicts.alone(found),
        "rows": found,
        "names": verdicts.NAMES,
        "settings": len({row["setting"] for row in found}) > 1,
        "groups": list(_groups(found)),
    }


def _groups(found: list[Row]) -> Iterator[Row]:
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
            "title": setting,
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
    in_form = any(row.get("strict") is not None for row in first.values())
    by_arm = _by_arm(prior)
    cut = any((cell.get("lost_cut") or 0) >= LEAST for row in by_arm for cell in row["cells"].values())
    return {"names": list(prior.benchmark.unique()), "base": first, "rows": by_arm, "in_form": in_form, "cut": cut}


def _by_arm(frame: pd.DataFrame) -> list[Row]:
    """One row a setting and arm, with a cell for every benchmark."""
    return [
        {"setting": setting, "arm": arm, "cells": {row["benchmark"]: row for row in rows(own)}}
        for (setting, arm), own in frame.groupby(["setting", "arm"], sort=False, observed=True)
    ]


def continual_section(analysis: Analysis) -> Row | None:
    """The measures of sequences, a column each; None where there is no sequence."""
    found = analysis.continual
    if not len(found):
        return None
    groups = found.groupby(["setting", "arm"], sort=False)
    table = [
        {"setting": s, "arm": arm, "cells": {row["measure"]: row for row in rows(own)}} for (s, arm), own in groups
    ]
    return {"measures": dict(zip(found.measure, found.source, strict=True)), "rows": table}


def example_section(job: Compare, studies: dict[str, FinishedStudy]) -> list[Row]:
    """Answers of the first study of each setting."""
    groups = []
    for setting, study in list(studies.items())[:EXAMPLES]:
        answers = examples.last_answers(study)
        own = {"asked": examples.asked(study, answers, job.seed), "lost": examples.lost(study, answers, job.seed)}
        groups.append({"setting": setting} | own)
    return groups


def influence_section(analysis: Analysis, studies: dict[str, FinishedStudy]) -> Row | None:
    """Predictions and what happened, the sources and their samples."""
    found = analysis.influence
    if found is None:
        return None
    changes = found.changes.groupby(["setting", "arm", "benchmark"], sort=False, observed=True)
    # Where training begins, over prior benchmarks.
    start = found.measures[(found.measures.step == 0) & (found.measures.stage == 0) & (found.measures.role != "target")]
    start = start[start.measure.isin(list(SOURCE_MEASURES))]
    sources = start.groupby(["setting", "arm", "source", "measure"], sort=False, observed=True)["value"].mean()
    return {
        "agreement": rows(found.agreement),
        "changes": _by_arm(changes[["measured", *PREDICTIONS]].mean().reset_index()),
        "benchmarks": list(found.changes.benchmark.unique()),
        "sources": rows(sources.unstack("measure").reset_index()),
        "shown": {name: title for name, title in SOURCE_MEASURES.items() if name in set(found.measures.measure)},
        "rankings": examples.rankings(next(iter(studies.values())), "influence"),
        "notes": rows(found.notes.drop_duplicates(["arm", "note", "text"])),
    }


def ledger_section(analysis: Analysis, studies: dict[str, FinishedStudy]) -> Row | None:
    """The accounts, and the samples of the first study behind them."""
    if analysis.ledgers is None:
        return None
    tables = {name: rows(table) for name, table in analysis.ledgers._asdict().items()}
    study = next(iter(studies.values()))
    return tables | {"colored": tokens.colored(study), "rankings": examples.rankings(study, "ledger")}


def predictor_section(analysis: Analysis) -> Row | None:
    """A row a predictor, a cell for every scope; the best one across arms is first."""
    if analysis.predictors is None:
        return None
    groups = analysis.predictors.fits.groupby("predictor", sort=False)
    found = [
        {"name": NAMES[str(name)]}
        | {row["scope"]: row for row in rows(own) if row["scope"] != ARM}
        | {"arms": {row["arm"]: row for row in rows(own) if row["scope"] == ARM}}
        for name, own in groups
    ]
    found.sort(key=lambda row: -(row[ACROSS]["r2"] or 0))
    arms = list(dict.fromkeys(arm for row in found for arm in row["arms"]))
    return {"rows": found, "arms": arms, "resamples": RESAMPLES}


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
    yield from ((name, key.replace("_", " "), words.fact(value)) for key, value in notes.items() if key != "flips")


def _samples(run: RunRecord) -> Row:
    """Where the completions that an arm learned from were sampled."""
    table = pq.read_table(Path(run.path) / "samples.parquet", columns=[*SAMPLED, "accuracy", "id"]).to_pandas()
    found = {"completions": len(table), "questions": table.id.nunique(), "right": table.accuracy.mean()}
    found |= {name: sorted(table[name].dropna().unique().tolist()) for name in SAMPLED}
    return {"arm": run.arm, "replicate": run.replicate} | found
