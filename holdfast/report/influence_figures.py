"""Figures of influence: does it predict what was forgotten, and how do sources pull along the training."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from holdfast.report.figures import DOTTED, WIDTH, beside, course, facets
from holdfast.report.theme import FAINT, PAPER, SOFT, Look, legend

LARGE = 50.0
"""Times the middle magnitude; an axis that has to hold more than that is bent."""


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
    bend(axes, values, "x")
    bend(axes, values, "y")
    low, high = min(axes.get_xlim() + axes.get_ylim()), max(axes.get_xlim() + axes.get_ylim())
    axes.plot([low, high], [low, high], color=SOFT, linewidth=0.9, linestyle=DOTTED)
    axes.fill_between([low, 0], low, 0, color=FAINT, alpha=0.45, linewidth=0, zorder=0)
    axes.annotate("forgotten, as predicted", (low, 0), (4, -11), textcoords="offset points", color=SOFT, fontsize=8.5)
    label = "predicted from gradients: change of log-likelihood per token"
    axes.set(xlim=(low, high), ylim=(low, high), xlabel=label, ylabel="measured change")
    legend(figure, looks, set(known.arm))
    return figure


def bend(axes: Axes, values: np.ndarray, which: Literal["x", "y"]) -> None:
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


def along(rows: pd.DataFrame, looks: dict[str, Look], label: str) -> Figure:
    """A measure along the training, a panel for each benchmark, with intervals; over zero the source reinforces it.

    Columns: arm, benchmark, share (of the arm's training), value with its interval.
    """
    names = list(rows.benchmark.unique())
    figure, panels = facets(names, 1.75, beside(len(names)))
    for axes, name in zip(panels, names, strict=True):
        axes.axhline(0, color=SOFT, linewidth=1)
        for arm, own in rows[rows.benchmark == name].sort_values("share").groupby("arm"):
            course(axes, own, "value", looks[str(arm)], 3.5)
        axes.xaxis.set_major_locator(FixedLocator([0, 0.5, 1]))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        bend(axes, rows.value.to_numpy(), "y")
    figure.supxlabel("share of the arm's own training")
    figure.supylabel(label)
    legend(figure, looks, set(rows.arm))
    return figure
