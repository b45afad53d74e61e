"""Figures of what was learned and what was forgotten. Each takes data frames of the analysis and returns a figure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, NullFormatter, PercentFormatter

from holdfast.report.theme import INK, PAPER, RIGHT, SOFT, WRONG, Look, legend

WIDTH = 8.6
"""Inches: 620 points, so that type of 9.5 points reads well on a page and in print."""
PANELS = 12
"""More settings than this stand in the tables alone."""
LABELS = {"score": "target score ↑", "prior": "prior accuracy, mean ↑", "retention": "retention ↑"}
UNREADABLE: dict[str, Any] = {"facecolor": PAPER, "edgecolor": WRONG, "hatch": "//////", "linewidth": 0.6}


class Line(NamedTuple):
    """A reference value with its name."""

    value: float | None
    name: str


def facets(names: Sequence[str], height: float, wide: int = 2, share: bool = True) -> tuple[Figure, list[Axes]]:
    """A panel for every name, `wide` beside each other; the single panel of an empty name has no title."""
    across = min(wide, len(names))
    down = -(-len(names) // across)
    figure = Figure(figsize=(WIDTH, height * down + 0.5))
    grid = figure.subplots(down, across, sharex=share, sharey=share, squeeze=False).ravel()
    for axes, name in zip(grid, names, strict=False):
        axes.set_title(name or "")
        axes.tick_params(labelbottom=True)
    for axes in grid[len(names) :]:
        axes.remove()
    return figure, list(grid[: len(names)])


def beside(panels: int) -> int:
    """How many small panels stand side by side, so that the last row is not nearly empty."""
    return 3 if panels in (3, 5, 6, 9) else min(4, panels)


def frontier(trajectory: pd.DataFrame, arms: pd.DataFrame, looks: dict[str, Look], chance: Line) -> Figure:
    """Skill against retention: every arm's mean over replicates from the base on, its end with both intervals."""
    settings = _settings(arms)
    figure, panels = facets(settings, 4.1 if len(settings) == 1 else 3.0)
    for axes, setting in zip(panels, settings, strict=True):
        axes.axhline(1, color=SOFT, linewidth=0.8, linestyle=":")
        _reference(axes, chance, upright=True)
        for name, path in _by_arm(trajectory, setting, looks):
            one, mean = looks[name], path[path.replicate == "mean"]
            for _, own in path[path.replicate != "mean"].groupby(["draw", "replicate"], observed=True):
                axes.plot(own.score, own.retention, color=one.color, linewidth=0.8, alpha=0.35)
            axes.plot(mean.score, mean.retention, color=one.color, linestyle=one.line)
            later = mean[mean.step > 0]
            axes.plot(later.score, later.retention, one.marker, color=one.color, markersize=4, markerfacecolor=PAPER)
        for end in arms[arms.setting == setting].itertuples():
            one, across, up = looks[end.arm], _whisker(end, "score"), _whisker(end, "retention")
            how: dict[str, Any] = {"color": one.color, "marker": one.marker, "markersize": 8, "markeredgecolor": PAPER}
            axes.errorbar(end.score, end.retention, yerr=up, xerr=across, elinewidth=1.2, **how)
        start = trajectory[(trajectory.setting == setting) & (trajectory.step == 0)]
        if len(start):
            axes.plot(start.score.iloc[0], 1.0, "o", color=INK, markersize=7)
            axes.annotate("base", (start.score.iloc[0], 1.0), (7, 5), textcoords="offset points", color=INK)
        axes.set_ylim(bottom=0)
    _named(panels, "skill: target score →", "retention ↑")
    legend(figure, looks)
    return figure


def _whisker(row: Any, measure: str) -> list[list[float]]:
    """Of an interval, how far it reaches below and above; nothing where it is not known."""
    value, low, high = (getattr(row, f"{measure}{end}") for end in ("", "_low", "_high"))
    return [[max(0.0, value - low)], [max(0.0, high - value)]]


def curves(
    trajectory: pd.DataFrame, looks: dict[str, Look], lines: dict[str, list[Line]], settings: Sequence[str]
) -> Figure:
    """Measures over the share of each arm's own training; bands are intervals, thin lines replicates.

    `lines` has the reference values of each measure that is drawn: a column of panels each.
    """
    figure = Figure(figsize=(WIDTH, (3.3 if len(settings) == 1 else 2.4) * len(settings) + 0.4))
    grid = figure.subplots(len(settings), len(lines), sharex=True, sharey="col", squeeze=False)
    for row, setting in zip(grid, settings, strict=True):
        for axes, (measure, levels) in zip(row, lines.items(), strict=True):
            axes.set_title(setting)
            axes.set_ylabel(LABELS[measure])
            for line in levels:
                _reference(axes, line)
            for name, path in _by_arm(trajectory, setting, looks):
                _course(axes, path, measure, looks[name])
            axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
            axes.set_xlim(-0.02, 1.03)
    for axes in grid[-1]:
        axes.set_xlabel("share of the arm's own training")
    legend(figure, looks)
    return figure


def _course(axes: Axes, path: pd.DataFrame, measure: str, one: Look) -> None:
    mean = path[path.replicate == "mean"]
    low, high = mean[f"{measure}_low"], mean[f"{measure}_high"]
    axes.fill_between(mean.share, low, high, color=one.color, alpha=0.12, linewidth=0)
    for _, own in path[path.replicate != "mean"].groupby(["draw", "replicate"], observed=True):
        axes.plot(own.share, own[measure], color=one.color, linewidth=0.8, alpha=0.4)
    axes.plot(mean.share, mean[measure], color=one.color, linestyle=one.line, marker=one.marker, markersize=5)


def differences(pairs: pd.DataFrame, panels: dict[str, tuple[str, str]]) -> Figure:
    """Of every pair, first − second with its interval, a panel each measure; filled where a verdict could be given.

    `panels` has the measure and the place of each title. Columns: name, measure, at, difference with its interval,
    verdict.
    """
    names = list(dict.fromkeys(pairs.name))
    known = {title: pairs[(pairs.measure == m) & (pairs["at"] == at)] for title, (m, at) in panels.items()}
    known = {title: own for title, own in known.items() if len(own)}
    figure = Figure(figsize=(WIDTH, 0.8 + 0.25 * max(2, len(names))))
    grid = figure.subplots(1, len(known), sharey=True, squeeze=False)[0]
    for axes, (title, own) in zip(grid, known.items(), strict=True):
        axes.set_title(title)
        axes.axvline(0, color=SOFT, linewidth=1)
        for row in own.itertuples():
            height = len(names) - 1 - names.index(row.name)
            color = {"better": RIGHT, "worse": WRONG}.get(row.verdict, SOFT)
            how: dict[str, Any] = {
                "markerfacecolor": PAPER if color == SOFT else color,
                "marker": "o",
                "markersize": 6.5,
            }
            axes.errorbar(row.difference, height, xerr=_whisker(row, "difference"), color=color, linewidth=2, **how)
        axes.grid(axis="y", visible=False)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlabel("← second is better · first is better →", fontsize=8.5, color=SOFT)
    grid[0].set_yticks(range(len(names)), names[::-1])
    grid[0].set_ylim(-0.7, len(names) - 0.3)
    for axes in grid:
        axes.tick_params(axis="y", labelcolor=INK, labelsize=9)
    return figure


def forgetting(benchmarks: pd.DataFrame, looks: dict[str, Look]) -> Figure:
    """By benchmark: the share of its questions that each arm lost, to wrong answers and to unreadable ones.

    The mark is forgetting with its interval: what was lost less what was gained.
    """
    several = benchmarks.setting.nunique() > 1
    frame = benchmarks.assign(label=benchmarks.arm + (" · " + benchmarks.setting if several else ""))
    labels = list(dict.fromkeys(frame.label))
    names = list(dict.fromkeys(frame.benchmark))
    wide = beside(len(names))
    figure, panels = facets(names, 0.75 + 0.21 * len(labels), wide)
    for place, (axes, name) in enumerate(zip(panels, names, strict=True)):
        axes.axvline(0, color=SOFT, linewidth=1)
        for row in frame[frame.benchmark == name].itertuples():
            height = len(labels) - 1 - labels.index(row.label)
            axes.barh(height, row.lost_wrong, 0.62, color=WRONG, alpha=0.75)
            axes.barh(height, row.lost_unreadable, 0.62, row.lost_wrong, **UNREADABLE)
            how: dict[str, Any] = {"marker": "|", "markersize": 7, "linewidth": 1.2}
            axes.errorbar(row.forgetting, height, xerr=_whisker(row, "forgetting"), color=INK, **how)
        axes.grid(axis="y", visible=False)
        axes.xaxis.set_major_locator(MaxNLocator(3))
        if place % wide == 0:
            axes.set_yticks(range(len(labels)), labels[::-1])
            axes.tick_params(axis="y", labelcolor=INK)
    handles: list[Artist] = [
        Patch(facecolor=WRONG, alpha=0.75, label="lost: wrong answer"),
        Patch(**UNREADABLE, label="lost: no answer can be read"),
        Line2D([], [], color=INK, marker="|", markersize=7, linewidth=1.2, label="forgetting: lost less gained"),
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=3)
    figure.supxlabel("share of the benchmark's questions", fontsize=9.5)
    return figure


def drift(rows: pd.DataFrame, looks: dict[str, Look]) -> Figure:
    """Distance from the base on target prompts against mean forgetting; one mark a checkpoint, the last one filled.

    Columns: setting, draw, arm, replicate, share (of its training), kl, forgetting.
    """
    figure = Figure(figsize=(WIDTH, 3.6))
    axes = figure.subplots()
    axes.axhline(0, color=SOFT, linewidth=1, linestyle=":")
    for name, path in rows[rows.kl > 0].groupby("arm", observed=True, sort=False):
        one = looks[name]
        for _, own in path.groupby(["setting", "draw", "replicate"], observed=True):
            axes.plot(own.kl, own.forgetting, color=one.color, linewidth=0.8, alpha=0.5)
        for marks, face in ((path[path.share < 1], PAPER), (path[path.share == 1], one.color)):
            axes.plot(marks.kl, marks.forgetting, one.marker, color=one.color, markerfacecolor=face)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.6g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    _named([axes], "drift: KL(base ‖ now), nats per token →", "mean forgetting ↑")
    legend(figure, looks)
    return figure


def settings(arms: pd.DataFrame, measure: str, looks: dict[str, Look]) -> Figure:
    """A measure at the end of training by setting, each arm with its interval; arms stand side by side."""
    names = _settings(arms)
    figure = Figure(figsize=(WIDTH, 0.8 + len(names) * max(0.35, 0.15 * len(looks))))
    axes = figure.subplots()
    spread = np.linspace(0.3, -0.3, len(looks)) if len(looks) > 1 else [0.0]
    for (arm, one), offset in zip(looks.items(), spread, strict=True):
        for row in arms[arms.arm == arm].itertuples():
            height, value = len(names) - 1 - names.index(row.setting) + offset, getattr(row, measure)
            axes.errorbar(value, height, xerr=_whisker(row, measure), color=one.color, marker=one.marker)
    axes.set_yticks(range(len(names)), names[::-1])
    axes.tick_params(axis="y", labelcolor=INK)
    axes.grid(axis="y", visible=False)
    for border in range(1, len(names)):
        axes.axhline(border - 0.5, color=SOFT, linewidth=0.4)
    axes.set_ylim(-0.5, len(names) - 0.5)
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
    _named(panels, "share of the training", "")
    legend(figure, {name: one for name, one in looks.items() if name in set(rows.arm)})
    return figure


def _reference(axes: Axes, line: Line, upright: bool = False) -> None:
    if line.value is None or not np.isfinite(line.value):
        return
    draw, along = (axes.axvline, axes.get_xaxis_transform()) if upright else (axes.axhline, axes.get_yaxis_transform())
    draw(line.value, color=SOFT, linewidth=0.9, linestyle=(0, (2, 3)))
    place, offset = ((line.value, 0.0), (3, 4)) if upright else ((1.0, line.value), (4, -3))
    axes.annotate(line.name, place, offset, xycoords=along, textcoords="offset points", color=SOFT, fontsize=8.5)


def _settings(frame: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(frame.setting))[:PANELS]


def _by_arm(frame: pd.DataFrame, setting: str, looks: dict[str, Look]) -> Iterator[tuple[str, pd.DataFrame]]:
    here = frame[frame.setting == setting]
    for name in looks:
        if len(path := here[here.arm == name].sort_values("step")):
            yield name, path


def _named(panels: Sequence[Axes], x: str, y: str) -> None:
    for axes in panels:
        under = axes.get_subplotspec()
        if under is None or under.is_last_row() or len(panels) < 4:
            axes.set_xlabel(x)
        if under is None or under.is_first_col():
            axes.set_ylabel(y)
