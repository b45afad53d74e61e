"""Figures of what was learned, forgotten and predicted. Each takes data frames of the analysis and returns a figure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter, NullLocator, PercentFormatter

from holdfast.report.theme import FAINT, INK, PAPER, RIGHT, SOFT, WRONG, Look, legend

WIDTH = 8.6
"""Inches: 620 points, so that type of 9.5 points reads well on a page and in print."""
LABELS = {"score": "target score ↑", "prior": "prior accuracy, mean ↑", "retention": "retention ↑"}
DOTTED = (0, (2, 3))
LARGE = 50.0
"""Times the middle magnitude; an axis that has to hold more than that is bent."""


def facets(names: Sequence[str], height: float, wide: int = 2, share: bool = True) -> tuple[Figure, list[Axes]]:
    """A panel for every name, `wide` beside each other; the single panel of an empty name has no title."""
    across = min(wide, len(names))
    down = -(-len(names) // across)
    figure = Figure(figsize=(WIDTH, height * down + 0.5))
    grid = figure.subplots(down, across, sharex=share, sharey=share, squeeze=False).ravel()
    for axes, name in zip(grid, names, strict=False):
        axes.set_title(name)
        axes.tick_params(labelbottom=True)
    for axes in grid[len(names) :]:
        axes.remove()
    return figure, list(grid[: len(names)])


def side_by_side(panels: int) -> int:
    """How many small panels stand side by side, so that the last row is not nearly empty."""
    return 3 if panels in (3, 5, 6, 9) else min(4, panels)


def frontier(trajectory: pd.DataFrame, arms: pd.DataFrame, looks: dict[str, Look], chance: float | None) -> Figure:
    """Skill against retention: every arm's mean over replicates from the base on, its end with both intervals."""
    settings = list(arms.setting.unique())
    figure, panels = facets(settings, 4.1 if len(settings) == 1 else 3.0)
    for axes, setting in zip(panels, settings, strict=True):
        axes.axhline(1, color=SOFT, linewidth=0.8, linestyle=":")
        _reference(axes, "chance", chance, upright=True)
        for name, mean in _means(axes, trajectory[trajectory.setting == setting], ("score", "retention"), looks):
            one, end = looks[name], arms[(arms.setting == setting) & (arms.arm == name)]
            how: dict[str, Any] = {"color": one.color, "marker": one.marker}
            hollow = {"markersize": 4, "markerfacecolor": PAPER, "markevery": slice(1, None)}
            axes.plot(mean.score, mean.retention, linestyle=one.line, **how, **hollow)
            reach = _whiskers(end, "retention"), _whiskers(end, "score")
            how |= {"markersize": 8, "markeredgecolor": PAPER, "zorder": 3}
            axes.errorbar(end.score, end.retention, *reach, elinewidth=1.2, **how)
        start = mean.score.iloc[0]
        axes.plot(start, 1.0, "o", color=INK, markersize=7, zorder=3)
        axes.annotate("base", (start, 1.0), (7, 5), textcoords="offset points", color=INK)
        axes.set_ylim(bottom=0)
    figure.supxlabel("skill: target score →")
    figure.supylabel("retention ↑")
    legend(figure, looks)
    return figure


def fronts(rows: pd.DataFrame, looks: dict[str, Look], common: float | None) -> Figure:
    """The retention that each arm can have at a skill, over all settings, with its interval."""
    figure = Figure(figsize=(WIDTH, 4.1))
    axes = figure.subplots()
    axes.axhline(1, color=SOFT, linewidth=0.8, linestyle=":")
    _reference(axes, "all arms reach", common, upright=True)
    for arm, own in rows.groupby("arm", sort=False):
        one = looks[str(arm)]
        axes.plot(own.score, own.retention, color=one.color, linestyle=one.line, drawstyle="steps-pre")
        how: Any = {"color": one.color, "alpha": 0.15, "linewidth": 0, "step": "pre"}
        axes.fill_between(own.score, own.retention_low.clip(lower=0), own.retention_high, **how)
    axes.set_ylim(0, max(1.08, rows.retention.max() + 0.05))
    figure.supxlabel("skill: target score of at least →")
    figure.supylabel("retention ↑")
    legend(figure, looks, set(rows.arm))
    return figure


def curves(
    trajectory: pd.DataFrame, looks: dict[str, Look], lines: dict[str, dict[str, float | None]], settings: Sequence[str]
) -> Figure:
    """Measures over the share of each arm's own training; bands are intervals, thin lines replicates.

    `lines` has the reference values, by name, of each measure that is drawn: a column of panels each.
    """
    figure = Figure(figsize=(WIDTH, (3.3 if len(settings) == 1 else 2.4) * len(settings) + 0.4))
    grid = figure.subplots(len(settings), len(lines), sharex=True, sharey="col", squeeze=False)
    for row, setting in zip(grid, settings, strict=True):
        own = trajectory[trajectory.setting == setting]
        for axes, (measure, levels) in zip(row, lines.items(), strict=True):
            axes.set(title=setting, ylabel=LABELS[measure], xlim=(-0.02, 1.03))
            for name, value in levels.items():
                _reference(axes, name, value)
            for name, mean in _means(axes, own, ("share", measure), looks):
                _course(axes, mean, measure, looks[name])
    figure.supxlabel("share of the arm's own training")
    legend(figure, looks)
    return figure


def _course(axes: Axes, rows: pd.DataFrame, measure: str, one: Look, size: float = 5) -> None:
    """A measure with its interval over the share of a training."""
    axes.fill_between(rows.share, rows[f"{measure}_low"], rows[f"{measure}_high"], color=one.color, alpha=0.13, lw=0)
    axes.plot(rows.share, rows[measure], color=one.color, linestyle=one.line, marker=one.marker, markersize=size)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))


def differences(pairs: pd.DataFrame, panels: dict[str, tuple[str, str]]) -> Figure:
    """Of every pair, first − second with its interval, a panel each measure; filled where a verdict could be given.

    `panels` has the measure and the place of each title. Columns: name, measure, at, difference with its interval,
    verdict.
    """
    names = list(pairs["name"].unique())
    known = {title: pairs[(pairs.measure == m) & (pairs["at"] == at)] for title, (m, at) in panels.items()}
    known = {title: own for title, own in known.items() if len(own)}
    figure = Figure(figsize=(WIDTH, 0.95 + 0.25 * max(2, len(names))))
    grid = figure.subplots(1, len(known), sharey=True, squeeze=False)[0]
    for axes, (title, own) in zip(grid, known.items(), strict=True):
        axes.set_title(title.replace(" at ", "\nat "))
        axes.axvline(0, color=SOFT, linewidth=1)
        for verdict, rows in own.groupby("verdict"):
            color = {"better": RIGHT, "worse": WRONG}.get(str(verdict), SOFT)
            how = {"color": color, "markerfacecolor": PAPER if color == SOFT else color}
            _intervals(axes, rows, "difference", rows["name"].map(names.index), marker="o", ms=6.5, linewidth=2, **how)
        _listed(axes, names)
        axes.xaxis.set_major_locator(MaxNLocator(4))
    figure.supxlabel("← second is better · first is better →", fontsize=8.5, color=SOFT)
    return figure


def forgetting(benchmarks: pd.DataFrame, looks: dict[str, Look]) -> Figure:
    """By benchmark: the share of its questions that each arm lost, to wrong answers and to unreadable ones.

    The mark is forgetting with its interval: what was lost less what was gained.
    """
    several = benchmarks.setting.nunique() > 1
    frame = benchmarks.assign(label=benchmarks.arm + (" · " + benchmarks.setting if several else ""))
    labels, names = list(frame.label.unique()), list(frame.benchmark.unique())
    figure, panels = facets(names, 0.75 + 0.21 * len(labels), side_by_side(len(names)))
    unreadable: dict[str, Any] = {"facecolor": PAPER, "edgecolor": WRONG, "hatch": "//////", "linewidth": 0.6}
    mark: dict[str, Any] = {"color": INK, "marker": "|", "ms": 7, "linewidth": 1.2}
    for axes, name in zip(panels, names, strict=True):
        own = frame[frame.benchmark == name]
        height = own.label.map(labels.index)
        axes.axvline(0, color=SOFT, linewidth=1)
        axes.barh(height, own.lost_wrong, 0.62, color=WRONG, alpha=0.75, label="lost: wrong answer")
        axes.barh(height, own.lost_unreadable, 0.62, own.lost_wrong, label="lost: no answer can be read", **unreadable)
        _intervals(axes, own, "forgetting", height, label="forgetting: lost less gained", **mark)
        _listed(axes, labels)
        axes.xaxis.set_major_locator(MaxNLocator(3))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
    figure.supxlabel("share of the benchmark's questions")
    return figure


def drift(rows: pd.DataFrame, looks: dict[str, Look]) -> Figure:
    """Distance from the base on target prompts against mean forgetting; one mark a checkpoint, the last one filled.

    Columns: setting, draw, arm, replicate, step, share (of its training), kl (above 0), forgetting.
    """
    figure = Figure(figsize=(WIDTH, 3.6))
    axes = figure.subplots()
    axes.axhline(0, color=SOFT, linewidth=1, linestyle=":")
    for name, _ in _means(axes, rows, ("kl", "forgetting"), looks):
        one, path = looks[name], rows[rows.arm == name]
        for marks, face in ((path[path.share < 1], PAPER), (path[path.share == 1], one.color)):
            axes.plot(marks.kl, marks.forgetting, one.marker, color=one.color, markerfacecolor=face)
    axes.set(xlabel="drift: KL(base ‖ now), nats per token →", ylabel="mean forgetting ↑", xscale="log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.6g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    legend(figure, looks)
    return figure


def predictors(points: pd.DataFrame, panels: dict[str, str], ranks: dict[str, float], looks: dict[str, Look]) -> Figure:
    """Each predictor against mean forgetting: a mark a checkpoint, and the quadratic fit across arms.

    `panels` has every column's title, `ranks` its rank correlation. Columns: arm, forgetting, and the predictors.
    """
    figure, grid = facets([panels[name] for name in ranks], 2.0, side_by_side(len(ranks)), share=False)
    for axes, (name, rank) in zip(grid, ranks.items(), strict=True):
        known = points[np.isfinite(points[name]) & np.isfinite(points.forgetting)]
        axes.axhline(0, color=SOFT, linewidth=0.8, linestyle=":")
        for arm, one in looks.items():
            own = known[known.arm == arm]
            axes.plot(own[name], own.forgetting, one.marker, color=one.color, markersize=4, alpha=0.75)
        if known[name].nunique() > 2:
            fit = np.polynomial.Polynomial.fit(known[name], known.forgetting, 2)
            axes.plot(*fit.linspace(50), color=INK, linewidth=1, linestyle=DOTTED)
        axes.title.set_fontsize(8.5)
        axes.set_xlabel(f"ρ = {rank:.2f}".replace("-", "−"), fontsize=8.5, color=SOFT)
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.ticklabel_format(axis="x", style="sci", scilimits=(-3, 4))
    figure.supylabel("mean forgetting ↑")
    legend(figure, looks, set(points.arm))
    return figure


def settings(arms: pd.DataFrame, measure: str, looks: dict[str, Look]) -> Figure:
    """A measure at the end of training by setting, each arm with its interval; arms stand side by side."""
    names = list(arms.setting.unique())
    figure = Figure(figsize=(WIDTH, 0.8 + len(names) * max(0.35, 0.15 * len(looks))))
    axes = figure.subplots()
    for (arm, one), offset in zip(looks.items(), np.linspace(-0.3, 0.3, len(looks)), strict=True):
        own = arms[arms.arm == arm]
        height = own.setting.map(names.index) + (offset if len(looks) > 1 else 0)
        _intervals(axes, own, measure, height, color=one.color, marker=one.marker)
    for border in range(1, len(names)):
        axes.axhline(border - 0.5, color=SOFT, linewidth=0.4)
    _listed(axes, names)
    axes.set_xlabel(LABELS[measure])
    legend(figure, looks)
    return figure


def logged(rows: pd.DataFrame, metrics: dict[str, str], looks: dict[str, Look]) -> Figure:
    """What trainings logged, over the share of their steps: one panel a metric, one line a replicate.

    Columns: arm, training (one line each), share, metric, value.
    """
    figure, panels = facets(list(metrics.values()), 2.5, share=False)
    for axes, metric in zip(panels, metrics, strict=True):
        for (arm, _), own in rows[rows.metric == metric].groupby(["arm", "training"], observed=True, sort=False):
            smooth = own.value.rolling(max(1, len(own) // 20), min_periods=1).mean()
            axes.plot(own.share, smooth, color=looks[arm].color, linestyle=looks[arm].line, linewidth=1.2)
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    figure.supxlabel("share of the training")
    legend(figure, looks, set(rows.arm))
    return figure


def predicted(changes: pd.DataFrame, looks: dict[str, Look]) -> Figure:
    """Measured against predicted change of the right answers' log-likelihood: a mark a benchmark, arm and replicate.

    Columns: arm, target (whether the benchmark is the target), predicted, measured.
    """
    known = changes[np.isfinite(changes.predicted) & np.isfinite(changes.measured)]
    figure = Figure(figsize=(WIDTH, 4.6))
    axes = figure.subplots()
    axes.axhline(0, color=SOFT, linewidth=0.8)
    axes.axvline(0, color=SOFT, linewidth=0.8)
    for name, one in looks.items():
        own = known[known.arm == name]
        for rows, face in ((own[~own.target], one.color), (own[own.target], PAPER)):
            axes.plot(rows.predicted, rows.measured, one.marker, color=one.color, mfc=face, ms=6, alpha=0.85)
    values = np.concatenate([known.predicted, known.measured])
    _bend(axes, values, "x")
    _bend(axes, values, "y")
    low, high = min(axes.get_xlim() + axes.get_ylim()), max(axes.get_xlim() + axes.get_ylim())
    axes.plot([low, high], [low, high], color=SOFT, linewidth=0.9, linestyle=DOTTED)
    axes.fill_between([low, 0], low, 0, color=FAINT, alpha=0.45, linewidth=0, zorder=0)
    axes.annotate("forgotten, as predicted", (low, 0), (4, -11), textcoords="offset points", color=SOFT, fontsize=8.5)
    label = "predicted from gradients: change of log-likelihood per token"
    axes.set(xlim=(low, high), ylim=(low, high), xlabel=label, ylabel="measured change")
    legend(figure, looks, set(known.arm))
    return figure


def waterfall(rows: pd.DataFrame, accounts: Sequence[str]) -> Figure:
    """From the base to the end of each arm, account by account: what each adds to, or takes from, the prior.

    Columns: arm, account (the last one `measured`, where the others have led to), value.
    """
    names = list(rows.arm.unique())
    figure, panels = facets(names, 2.2, side_by_side(len(names)))
    for axes, name in zip(panels, names, strict=True):
        own = rows[rows.arm == name].set_index("account").value
        steps = own.reindex(list(accounts)).to_numpy()
        begins = np.concatenate([[0.0], np.cumsum(steps)[:-1]])
        colors = [RIGHT if step > 0 else WRONG for step in steps]
        places = np.arange(len(accounts))[::-1]
        axes.barh(places, steps, left=begins, color=colors, height=0.7)
        axes.axvline(0, color=SOFT, linewidth=0.8)
        axes.axvline(own["measured"], color=INK, linewidth=1, linestyle=DOTTED)
        axes.set_yticks(places, list(accounts))
        axes.xaxis.set_major_locator(MaxNLocator(4))
    figure.supxlabel("change of the prior’s log-likelihood per token; dotted: measured")
    return figure


def along(rows: pd.DataFrame, looks: dict[str, Look], label: str) -> Figure:
    """A measure along the training, a panel for each benchmark, with intervals; over zero the source reinforces it.

    Columns: arm, benchmark, share (of the arm's training), value with its interval.
    """
    names = list(rows.benchmark.unique())
    figure, panels = facets(names, 1.75, side_by_side(len(names)))
    for axes, name in zip(panels, names, strict=True):
        axes.axhline(0, color=SOFT, linewidth=1)
        for arm, own in rows[rows.benchmark == name].sort_values("share").groupby("arm"):
            _course(axes, own, "value", looks[str(arm)], 3.5)
        axes.xaxis.set_major_locator(FixedLocator([0, 0.5, 1]))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        _bend(axes, rows.value.to_numpy(), "y")
    figure.supxlabel("share of the arm's own training")
    figure.supylabel(label)
    legend(figure, looks, set(rows.arm))
    return figure


def _means(
    axes: Axes, rows: pd.DataFrame, over: tuple[str, str], looks: dict[str, Look]
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Draws one measure over another, a thin line a replicate, and returns each arm's rows of means."""
    for name, one in looks.items():
        path = rows[rows.arm == name].sort_values("step")
        for _, own in path[path.replicate != "mean"].groupby(["setting", "draw", "replicate"], observed=True):
            axes.plot(own[over[0]], own[over[1]], color=one.color, linewidth=0.8, alpha=0.4)
        if len(path):
            yield name, path[path.replicate == "mean"]


def _intervals(axes: Axes, rows: pd.DataFrame, measure: str, height: pd.Series, **how: Any) -> None:
    """A measure with its interval, each row at its height."""
    axes.errorbar(rows[measure], height, xerr=_whiskers(rows, measure), linestyle="", **how)


def _whiskers(rows: pd.DataFrame, measure: str) -> np.ndarray:
    """How far each row's interval reaches below and above (2, rows); NaN where it is not known."""
    value = rows[measure]
    return np.clip([value - rows[f"{measure}_low"], rows[f"{measure}_high"] - value], 0, None)


def _listed(axes: Axes, names: Sequence[str]) -> None:
    """Names from the top down, each at its number."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", labelcolor=INK, labelsize=9)
    axes.grid(axis="y", visible=False)


def _reference(axes: Axes, name: str, value: float | None, upright: bool = False) -> None:
    if value is None or not np.isfinite(value):
        return
    draw, along = (axes.axvline, axes.get_xaxis_transform()) if upright else (axes.axhline, axes.get_yaxis_transform())
    draw(value, color=SOFT, linewidth=0.9, linestyle=DOTTED)
    place, offset = ((value, 0.0), (3, 4)) if upright else ((1.0, value), (4, -3))
    axes.annotate(name, place, offset, xycoords=along, textcoords="offset points", color=SOFT, fontsize=8.5)


def _bend(axes: Axes, values: np.ndarray, which: Literal["x", "y"]) -> None:
    """Linear near zero, logarithmic beyond, where one arm far out would press all others into a point."""
    sizes = np.abs(values[np.isfinite(values) & (values != 0)])
    if not len(sizes) or sizes.max() < LARGE * np.median(sizes):
        return
    near = 10.0 ** np.floor(np.log10(np.median(sizes)))
    powers = near * 10.0 ** np.arange(np.ceil(np.log10(sizes.max() / near)) + 1)
    getattr(axes, f"set_{which}scale")("symlog", linthresh=near)
    axis = getattr(axes, f"{which}axis")
    axis.set_major_locator(FixedLocator([*-powers[::-1], 0.0, *powers]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "−"))
