"""Measures along training. An arm has the same color and marker in every figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from markupsafe import Markup

from holdfast.analysis.records import ArmRun, Point
from holdfast.report import charts
from holdfast.report.charts import Frame, Level, horizontal


def swatch(index: int) -> Markup:
    """The key to an arm's color and marker."""
    return Markup('<svg class="swatch {}" viewBox="0 0 26 12" width="26" height="12">{}{}</svg>').format(
        charts.series_class(index), charts.line(1, 6, 25, 6, "curve"), charts.marker(index, 13, 6)
    )


def curves(
    arms: Sequence[ArmRun], value: Callable[[Point], float | None], y_label: str, levels: Sequence[Level], small: bool
) -> Markup:
    """A measure along training, from 0 to 1, over the share of each arm's own steps."""
    frame = Frame(252, 168, 30, 10, 20, 22) if small else Frame(540, 308, 36, 96, 30, 40)
    x, y = frame.scales((0, 1), (0, 1.0))
    name = "" if small else "share of the arm's training steps"
    shares = (0, 0.5, 1) if small else (0, 0.25, 0.5, 0.75, 1)
    parts = [charts.axes(frame, x, y, (name, y_label), {share: f"{100 * share:g} %" for share in shares})]
    parts += [horizontal(frame, y, level) for level in levels]
    ends = []
    for index, arm in enumerate(arms):
        seen = [(p, value(p)) for p in arm.points]
        known = [(x(p.step / max(arm.steps, 1)), y(v), p, v) for p, v in seen if v is not None]
        if known:
            parts.append(_series(index, arm.name, known, small))
            ends.append((index, arm.name, known[-1][1]))
    if not small:
        parts.append(_end_labels(frame, ends))
    return charts.svg(frame, parts, f"{y_label} along training")


def _series(index: int, arm: str, known: Sequence[tuple[float, float, Point, float]], small: bool) -> Markup:
    marks = [
        Markup("<g>{}<title>{}</title></g>").format(
            charts.marker(index, px, py, 2.6 if small else 4), f"{arm}, step {point.step}: {value:.3f}"
        )
        for px, py, point, value in known
    ]
    curve = charts.path([(px, py) for px, py, _, _ in known], "curve")
    return Markup('<g class="{}">{}{}</g>').format(charts.series_class(index), curve, Markup("").join(marks))


def _end_labels(frame: Frame, ends: Sequence[tuple[int, str, float]]) -> Markup:
    heights = charts.spread([height for _, _, height in ends], 15, frame.top + 4, frame.height - frame.bottom)
    right = frame.width - frame.right
    return Markup("").join(
        Markup('<g class="{}">{}{}</g>').format(
            charts.series_class(index),
            charts.line(right + 5, height, right + 13, moved, "leader"),
            charts.text(right + 16, moved + 4, charts.short(name), "name"),
        )
        for (index, name, height), moved in zip(ends, heights, strict=True)
    )
