"""Figures of a sequence of targets: its matrices as heat maps, and every benchmark along all of its steps."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from holdfast.report.figures import DOTTED, facets, side_by_side
from holdfast.report.theme import FAINT, INK, PAPER, RIGHT, SOFT, Look, legend


def matrices(ends: pd.DataFrame) -> Figure:
    """A heat map for every setting and arm. Columns: setting, arm, stage, step, learned, benchmark, value."""
    groups = list(ends.groupby(["setting", "arm"], sort=False, observed=True))
    columns = list(ends.benchmark.unique())
    most = max(own.step.nunique() for _, own in groups)
    figure, panels = facets([" · ".join(filter(None, key[::-1])) for key, _ in groups], 0.95 + 0.24 * most, share=False)
    shades = LinearSegmentedColormap.from_list("shares", [PAPER, RIGHT])
    for axes, (_, own) in zip(panels, groups, strict=True):
        table = own.pivot(index="step", columns="benchmark", values="value")[columns]
        axes.imshow(table, cmap=shades, vmin=0, vmax=1, aspect="auto")
        for (row, column), value in np.ndenumerate(table.to_numpy()):
            axes.annotate(f"{value:.2f}", (column, row), ha="center", va="center", fontsize=7, color=INK)
        learned = own.drop_duplicates("step").sort_values("step").learned.tolist()
        for row, name in enumerate(learned):
            if name:
                axes.add_patch(Rectangle((columns.index(name) - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=INK))
        axes.set_xticks(range(len(columns)), columns, rotation=40, ha="right", fontsize=8)
        axes.set_yticks(range(len(learned)), ["base", *(f"{n + 1} {name}" for n, name in enumerate(learned[1:]))])
        axes.grid(False)
    return figure


def curves(means: pd.DataFrame, looks: dict[str, Look]) -> Figure:
    """A panel for every setting and benchmark. Columns: setting, arm, step, ends, benchmark, role, value, and the
    intervals of score and accuracy."""
    groups = list(means.groupby(["setting", "benchmark"], sort=False, observed=True))
    figure, panels = facets([" · ".join(filter(None, key[::-1])) for key, _ in groups], 1.75, side_by_side(len(groups)))
    for axes, (_, own) in zip(panels, groups, strict=True):
        measure = "score" if own.role.iloc[0] == "target" else "accuracy"
        for arm, rows in own.groupby("arm", sort=False):
            one, rows = looks[str(arm)], rows.sort_values("step")
            band = rows[f"{measure}_low"], rows[f"{measure}_high"]
            axes.fill_between(rows.step, *band, color=one.color, alpha=0.13, lw=0)
            axes.plot(rows.step, rows.value, color=one.color, linestyle=one.line, marker=one.marker, markersize=3.5)
        first = own[(own.arm == own.arm.iloc[0]) & own.ends & (own.step > 0)]
        for step in first.step:
            axes.axvline(step, color=SOFT, linewidth=0.7, linestyle=DOTTED)
        axes.set_ylim(-0.02, 1.02)
        axes.set_facecolor(PAPER if measure == "score" else FAINT + "40")
    figure.supxlabel("steps over all stages")
    legend(figure, looks, set(means.arm))
    return figure
