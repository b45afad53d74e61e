"""One self-contained page on finished studies, and its figures: every number in it comes from the analysis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from holdfast.analysis.study import Analysis, analyse
from holdfast.analysis.summary import summary
from holdfast.config.jobs import Compare, FinishedStudy
from holdfast.journal import read_lines, strict_json
from holdfast.report import figures, influence_figures, provenance, sections, theme, verdicts, words
from holdfast.report.figures import Line
from holdfast.report.theme import Folder, Look

PAIRS = 45
"""A figure of differences has no more rows."""
LOGGED = {"train/reward": "reward", "train/completions/mean_length": "length of completions, tokens"}
"""What is drawn of reinforced trainings."""


def compare(job: Compare, out: Path) -> dict[str, Any]:
    """Write report.html, summary.json and figures/; returns the notes of the result.

    Raises:
        UserError: no study has finished evaluating, or two cannot be compared.
    """
    analysis = analyse(job)
    content = summary(analysis)
    (out / "summary.json").write_text(strict_json(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    headline = verdicts.headline(sections.rows(analysis.verdicts), sections.rows(analysis.arms))
    drawn = draw(analysis, Folder(out / "figures"))
    page = render(analysis, content, headline, drawn)
    (out / "report.html").write_text(page, encoding="utf-8")
    return {"arms": analysis.arms.arm.nunique(), "headline": headline, "report_bytes": len(page.encode())}


def render(analysis: Analysis, content: dict[str, Any], headline: str, drawn: dict[str, Markup]) -> str:
    """The page; all text that comes from data or models is escaped by the template engine."""
    job, settings = analysis.job, _settings(analysis)
    context = {
        "job": job,
        "headline": headline,
        "drawn": drawn,
        "sheet": Markup(theme.sheet()),
        "swatches": {name: theme.swatch(one) for name, one in _looks(analysis).items()},
        "settings": [name for name in settings if name],
        "verdicts": sections.verdict_section(analysis),
        "benchmarks": sections.benchmark_section(analysis),
        "influence": sections.influence_section(analysis, settings),
        "length_split": sections.rows(analysis.length_split),
        "flips": sections.rows(analysis.tables.flips),
        "trainings": int(analysis.arms.replicates.sum()),
        "evidence": content.get("evidence", ""),
        **sections.arms_section(analysis),
        **sections.example_section(job, settings),
        **provenance.run_section(job, settings),
    }
    return _environment().get_template("page.html.j2").render(context)


def _environment() -> Environment:
    """The pages, which escape everything and know no undefined names."""
    environment = Environment(
        loader=PackageLoader("holdfast.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = (words.number, words.signed, words.significant, words.duration)
    environment.filters |= {function.__name__: function for function in shown}
    return environment


def _settings(analysis: Analysis) -> dict[str, FinishedStudy]:
    """The first study of each setting."""
    found: dict[str, FinishedStudy] = {}
    for place, study in zip(analysis.tables.places, analysis.job.studies, strict=True):
        found.setdefault(place.setting, study)
    return found


def _looks(analysis: Analysis) -> dict[str, Look]:
    """An arm looks the same in every figure."""
    return {name: theme.look(index) for index, name in enumerate(dict.fromkeys(analysis.arms.arm))}


def draw(analysis: Analysis, folder: Folder) -> dict[str, Markup]:
    """All figures for which there is something to draw, by name."""
    drawn: dict[str, Markup] = {}
    if not len(analysis.arms):
        return drawn
    with theme.style():
        _draw_measures(analysis, folder, drawn)
        _draw_differences(analysis, folder, drawn)
        _draw_training(analysis, folder, drawn)
        if analysis.influence is not None:
            _draw_influence(analysis, folder, drawn)
    return drawn


def _draw_measures(analysis: Analysis, folder: Folder, drawn: dict[str, Markup]) -> None:
    looks, arms, base = _looks(analysis), analysis.arms, analysis.base
    path = _shared(analysis.trajectory)
    settings = list(dict.fromkeys(arms.setting))[: figures.PANELS]
    target, prior = base[base.role == "target"], base[base.benchmark == "mean"]
    chance = Line(_one(target.chance), "chance")
    drawn["frontier"] = folder.save(
        figures.frontier(path, arms, looks, chance), "frontier", "Skill against retention", path
    )
    levels = [Line(_one(prior.chance), "chance"), Line(_one(prior.accuracy), "base")]
    drawn["curves"] = folder.save(
        figures.curves(path, looks, {"score": [chance], "prior": levels}, settings), "curves", "Along training", path
    )
    lost = analysis.benchmarks[analysis.benchmarks.role == "prior"]
    if len(lost):
        drawn["forgetting"] = folder.save(
            figures.forgetting(lost, looks), "forgetting", "What was forgotten, by benchmark", lost
        )
    if len(settings) > 1:
        shown = arms[arms.setting.isin(settings)]
        drawn["settings"] = folder.save(
            figures.settings(shown, "retention", looks, []), "settings", "Retention by setting", arms
        )
    moved = path[(path.replicate != "mean") & (path.kl > 0) & np.isfinite(path.kl)]
    if len(moved):
        moved = moved.assign(last=moved.share == 1)
        drawn["drift"] = folder.save(figures.drift(moved, looks), "drift", "Drift against forgetting", moved)


def _shared(trajectory: pd.DataFrame) -> pd.DataFrame:
    """With the share of the arm's own training."""
    ends = trajectory.groupby(["setting", "arm"], observed=True)["step"].transform("max")
    return trajectory.assign(share=trajectory.step / ends.clip(lower=1))


def _one(values: pd.Series) -> float | None:
    """The value that all settings share; None where they differ or nobody knows."""
    known = values.dropna().round(6).unique()
    return float(known[0]) if len(known) == 1 else None


def _draw_differences(analysis: Analysis, folder: Folder, drawn: dict[str, Markup]) -> None:
    for name, own in (
        ("verdicts", analysis.verdicts[analysis.verdicts.factor == "arm"]),
        ("levels", analysis.verdicts[analysis.verdicts.factor != "arm"]),
    ):
        own = own[own.difference.notna()]
        several = own.setting.nunique() > 1
        label = [
            " · ".join(filter(None, [f"{r.a} − {r.b}", r.arm, r.setting if several else ""])) for r in own.itertuples()
        ]
        pairs = own.assign(name=label)
        if 0 < pairs.name.nunique() <= PAIRS:
            panels = {verdicts.NAMES[place]: place for place in verdicts.PLACES}
            title = "Differences between arms" if name == "verdicts" else "Differences between settings"
            drawn[name] = folder.save(figures.differences(pairs, panels), name, title, pairs)


def _draw_training(analysis: Analysis, folder: Folder, drawn: dict[str, Markup]) -> None:
    """Reward and length of reinforced trainings, as their trainer logged them."""
    found = []
    trainings = analysis.tables.trainings
    for row in trainings[trainings.method == "grpo"].itertuples():
        for line in read_lines(Path(row.path) / "metrics.jsonl"):
            for metric in LOGGED.keys() & line.get("metrics", {}).keys():
                share = line["step"] / max(1, row.steps)
                found.append((row.arm, row.path, share, metric, line["metrics"][metric]))
    if found:
        frame = pd.DataFrame(found, columns=["arm", "training", "share", "metric", "value"]).sort_values(
            ["arm", "training", "metric", "share"], kind="stable"
        )
        frame["training"] = frame.groupby("training", sort=False).ngroup()
        known = {metric: name for metric, name in LOGGED.items() if metric in set(frame.metric)}
        figure = figures.logged(frame, known, _looks(analysis))
        drawn["training"] = folder.save(figure, "training", "Reward and length along training", frame)


def _draw_influence(analysis: Analysis, folder: Folder, drawn: dict[str, Markup]) -> None:
    found, looks = analysis.influence, _looks(analysis)
    assert found is not None
    changes = found.changes.assign(predicted=found.changes.trapezoid, target=found.changes.role == "target")
    if len(changes):
        drawn["influence"] = folder.save(
            influence_figures.predicted(changes, looks), "influence", "Predicted and measured forgetting", changes
        )
    for measure, label in (("dot", "dot product"), ("cosine", "cosine")):
        own = found.measures[(found.measures.measure == measure) & (found.measures.setting == _setting(found.measures))]
        own = own[(own.stage == own.stage.min()) & (own.benchmark != "")]
        if len(own):
            ends = own.groupby("arm", observed=True)["step"].transform("max").clip(lower=1)
            own = own.assign(share=own.step / ends, low=own.value_low, high=own.value_high)
            drawn[measure] = folder.save(
                influence_figures.along(own, looks, label), measure, f"{label} along training".capitalize(), own
            )


def _setting(measures: pd.DataFrame) -> str:
    """The first one: others' influence stands in the tables."""
    return str(measures.setting.iloc[0]) if len(measures) else ""
