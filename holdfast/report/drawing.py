"""Which figures a report has: each is drawn from tables of the analysis and saved with what it shows."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from markupsafe import Markup

from holdfast.analysis.ledger import ACCOUNTS
from holdfast.analysis.predictors import ACROSS, NAMES
from holdfast.analysis.study import Analysis
from holdfast.analysis.table import journal
from holdfast.report import figures, sequence, theme, verdicts
from holdfast.report.theme import Folder, Look

PANELS = 12
"""More settings than this stand in the tables alone."""
PAIRS = 45
"""A figure of differences has no more rows."""
LOGGED = {"train/reward": "reward", "train/completions/mean_length": "length of completions, tokens"}
"""What is drawn of reinforced trainings."""


def looks(analysis: Analysis) -> dict[str, Look]:
    """An arm looks the same in every figure."""
    return {name: theme.look(index) for index, name in enumerate(analysis.arms.arm.unique())}


def draw(analysis: Analysis, path: Path) -> dict[str, Markup]:
    """Save all figures for which there is something to draw; returns them by name."""
    folder = Folder(path)
    if len(analysis.arms):
        with matplotlib.rc_context(fname=theme.STYLE):
            _measures(analysis, folder)
            _sequence(analysis, folder)
            _differences(analysis.verdicts, folder)
            _training(analysis, folder)
            _influence(analysis, folder)
            _ledger(analysis, folder)
            _predictors(analysis, folder)
    return folder.drawn


def _measures(analysis: Analysis, folder: Folder) -> None:
    own, arms, base = looks(analysis), analysis.arms, analysis.base
    path = _shares(analysis.trajectory, ["setting", "arm"])
    settings = list(arms.setting.unique())[:PANELS]
    shown = arms[arms.setting.isin(settings)]
    prior = base[base.benchmark == "mean"]
    chance = one(base[base.role == "target"].chance)
    folder.save("frontier", "Skill against retention", path, figures.frontier(path, shown, own, chance))
    if analysis.fronts is not None:
        common = one(analysis.fronts.areas.common)
        drawn = figures.fronts(analysis.fronts.curves, own, common)
        folder.save("fronts", "What can be kept at a skill", analysis.fronts.curves, drawn)
    levels = {"score": {"chance": chance}, "prior": {"chance": one(prior.chance), "base": one(prior.accuracy)}}
    folder.save("curves", "Skill and prior along training", path, figures.curves(path, own, levels, settings))
    lost = analysis.benchmarks[analysis.benchmarks.role == "prior"]
    if len(lost):
        folder.save("forgetting", "What was forgotten, by benchmark", lost, figures.forgetting(lost, own))
    if len(settings) > 1:
        folder.save("settings", "Retention by setting", arms, figures.settings(shown, "retention", own))
    moved = path[(path.replicate != "mean") & (path.kl > 0) & (path.kl < np.inf)]
    if len(moved):
        folder.save("drift", "Drift against forgetting", moved, figures.drift(moved, own))


def _sequence(analysis: Analysis, folder: Folder) -> None:
    """The matrix of stages and benchmarks, and the curves between its rows; in the files, of all replicates."""
    own = analysis.courses
    if len(own):
        shown = own.assign(value=own.score.where(own.role == "target", own.accuracy))
        means = shown[(shown.replicate == "mean") & shown.setting.isin(list(own.setting.unique())[:PANELS])]
        folder.save(
            "matrix", "The matrix of stages and benchmarks", own[own.ends], sequence.matrices(means[means.ends])
        )
        folder.save("sequence", "Every benchmark along the sequence", own, sequence.curves(means, looks(analysis)))


def _predictors(analysis: Analysis, folder: Folder) -> None:
    """Every predictor of which something is known, with its rank correlation across arms."""
    if analysis.predictors is not None:
        points, fits = analysis.predictors
        ranks = fits[fits.scope == ACROSS].set_index("predictor").spearman.dropna().to_dict()
        if ranks:
            drawn = figures.predictors(points, NAMES, ranks, looks(analysis))
            folder.save("predictors", "Predictors and forgetting", points, drawn)


def _shares(frame: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """With `share`, of the arm's own training."""
    ends = frame.groupby(keys, observed=True)["step"].transform("max")
    return frame.assign(share=frame.step / ends.clip(lower=1))


def one(values: pd.Series) -> float | None:
    """The value that all settings have; None where they differ or nobody knows."""
    known = values.dropna().round(6).unique()
    return float(known[0]) if len(known) == 1 else None


def _differences(found: pd.DataFrame, folder: Folder) -> None:
    panels = {title: place for place, title in verdicts.NAMES.items()}
    for name, what in (("verdicts", "arms"), ("levels", "settings")):
        own = found[(found.factor == "arm") == (name == "verdicts")].dropna(subset="difference")
        where = own.setting if own.setting.nunique() > 1 else [""] * len(own)
        parts = zip(own.a + " − " + own.b, own.arm, where, strict=True)
        pairs = own.assign(name=[" · ".join(filter(None, part)) for part in parts])
        if 0 < pairs["name"].nunique() <= PAIRS:
            folder.save(name, f"Differences between {what}", pairs, figures.differences(pairs, panels))


def _training(analysis: Analysis, folder: Folder) -> None:
    """Reward and length of trainings that sample, as their trainer logged them."""
    trainings = analysis.tables.trainings
    found = [
        (row.arm, number, line["step"] / max(1, row.steps), metric, line["metrics"][metric])
        for number, row in enumerate(trainings[trainings.method != "sft"].itertuples(), 1)
        for line in journal(row)
        for metric in LOGGED.keys() & line.get("metrics", {}).keys()
    ]
    if found:
        frame = pd.DataFrame(found, columns=["arm", "training", "share", "metric", "value"])
        frame = frame.sort_values(["training", "metric", "share"], kind="stable")
        known = {metric: name for metric, name in LOGGED.items() if metric in set(frame.metric)}
        drawn = figures.logged(frame, known, looks(analysis))
        folder.save("training", "Reward and length along training", frame, drawn)


def _influence(analysis: Analysis, folder: Folder) -> None:
    """Along the training the first setting's alone: others' stand in summary.json."""
    found, own = analysis.influence, looks(analysis)
    if found is None or not len(found.changes):
        return
    changes = found.changes.assign(predicted=found.changes.trapezoid, target=found.changes.role == "target")
    folder.save("influence", "Predicted and measured forgetting", changes, figures.predicted(changes, own))
    measures = found.measures[(found.measures.benchmark != "") & (found.measures.stage == 0)]
    measures = measures[measures.setting == found.changes.setting.iloc[0]]
    for measure, label in (("dot", "dot product"), ("cosine", "cosine")):
        rows = _shares(measures[measures.measure == measure], ["arm"])
        if len(rows):
            title = f"{label} along training".capitalize()
            folder.save(measure, title, rows, figures.along(rows, own, label))


def _ledger(analysis: Analysis, folder: Folder) -> None:
    """The first setting's accounts."""
    if analysis.ledgers is None:
        return
    accounts = analysis.ledgers.accounts
    first = accounts[accounts.setting == accounts.setting.iloc[0]]
    if first.stage.any():
        first = first.assign(arm=[f"{row.arm}, stage {row.stage + 1}" for row in first.itertuples()])
    folder.save("ledger", "What lost the prior", first, figures.waterfall(first, ACCOUNTS))
