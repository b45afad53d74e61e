"""Influence drawn: magnitude against direction, dot products along training, and predicted against measured change."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from holdfast.analysis.influence_runs import Trace
from holdfast.analysis.influence_summary import of_source, prior_mean, significant
from holdfast.report import charts, scatter
from holdfast.report.charts import Frame, Level, Scale
from holdfast.report.scatter import Spot, Trajectory

WIDE = 3
"""An axis is logarithmic where its largest value is more than so many times its smallest."""
UNEVEN = 20
"""An axis is bent where its largest value is more than so many times the median."""
BOUNDS = ("value", "low", "high")
DRAWN = 1500
"""Questions at most in one scatter; every so many-th of more."""


class Bend(NamedTuple):
    """asinh(value / unit): about linear within ±unit, logarithmic beyond, so that 0 and both signs have a place."""

    unit: float | None
    """None leaves values as they are."""

    def __call__(self, value: float) -> float:
        return value if self.unit is None else math.asinh(value / self.unit)

    def ticks(self, most: float) -> dict[float, str]:
        """Positions and names up to ±most."""
        if self.unit is None:
            return {value: charts.tick_label(value) for value in charts.ticks(-most, most, 4)}
        powers = [10.0**power for power in range(_power(self.unit) + 1, _power(most) + 1)]
        return {self(value): charts.tick_label(value) for value in [*(-p for p in powers), 0.0, *powers]}


def bend(values: Iterable[float]) -> tuple[Bend, float]:
    """The axis for these values, and the largest of their sizes; never 0."""
    sizes = sorted(abs(value) for value in values if value)
    if not sizes:
        return Bend(None), 1.0
    most, middle = sizes[-1], sizes[len(sizes) // 2]
    return Bend(10.0 ** (_power(most) - 2) if most > UNEVEN * middle else None), most


def _power(value: float) -> int:
    return math.floor(math.log10(value) + 1e-9)


def magnitude_direction(traces: Sequence[Trace]) -> Markup | None:
    """Mean ‖g‖ per token against the mean cosine with the prior benchmarks; None where neither is known."""
    found = [(trace, _points(trace)) for trace in traces]
    known = [point for _, points in found for point in points]
    if not known:
        return None
    sizes, cosines = [size for _, size, _ in known], [cosine for _, _, cosine in known]
    logarithmic = max(sizes) > WIDE * min(sizes)
    trajectories = [_trajectory(trace, points, logarithmic) for trace, points in found if points]
    frame = Frame(720, 380, 52, 92, 30, 44)
    right = frame.width - frame.right
    across = [spot.x for trajectory in trajectories for spot in trajectory.spots]
    x, y = frame.scales(_padded(across, 0.08), _padded([0.0, *cosines], 0.12))
    labels = ("magnitude: mean gradient norm per token →", "direction: cosine with prior knowledge ↑")
    parts = [
        charts.axes(frame, x, y, labels, scatter.decades(x) if logarithmic else None),
        charts.line(frame.left, y(0), right, y(0), "matched"),
        charts.text(right + 8, y(0) - 5, "↑ reinforces", "note"),
        charts.text(right + 8, y(0) + 14, "↓ forgets", "note"),
        *(scatter.draw_trajectory(trajectory, (x, y)) for trajectory in trajectories),
        scatter.trajectory_names(frame, trajectories, (x, y)),
    ]
    return charts.svg(frame, parts, "Magnitude against direction of influence on prior knowledge")


def _points(trace: Trace) -> list[tuple[int, float, float]]:
    """(step, norm per token, mean prior cosine) of every checkpoint that has both."""
    values = [(s, of_source(trace, s, "norm_per_token"), prior_mean(trace, s, "cosine")) for s in trace.steps]
    return [(step, size, cosine) for step, size, cosine in values if size and cosine is not None]


def _trajectory(trace: Trace, points: Sequence[tuple[int, float, float]], logarithmic: bool) -> Trajectory:
    spots = [
        Spot(
            math.log10(size) if logarithmic else size,
            cosine,
            f"{trace.label}, step {step}: norm per token {significant(size)}, cosine {significant(cosine)}",
        )
        for step, size, cosine in points
    ]
    return Trajectory(trace.label, trace.color, spots)


def _padded(values: Sequence[float], share: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    air = share * (high - low) or 0.1 * abs(high) or 1.0
    return low - air, high + air


def dots_along_training(traces: Sequence[Trace], found: Mapping[str, Mapping[str, Any]]) -> list[Markup]:
    """`dot` on each prior benchmark over the share of each arm's own steps, with its interval, all on one scale.

    `found` is what summary.json says of the traces, by label.
    """
    names = list(dict.fromkeys(name for trace in traces for name in trace.prior))
    checkpoints = [(trace, found[trace.label]["checkpoints"]) for trace in traces]
    known = [
        value for _, points in checkpoints for point in points for name in names if (value := point["dot"].get(name))
    ]
    axis, most = bend(value[bound] for value in known for bound in BOUNDS if value[bound] is not None)
    return [_small(checkpoints, name, axis, most) for name in names]


def _small(checkpoints: Sequence[tuple[Trace, Any]], name: str, axis: Bend, most: float) -> Markup:
    frame = Frame(252, 168, 40, 10, 20, 22)
    x, y = frame.scales((0, 1), (-axis(most) * 1.08, axis(most) * 1.08))
    parts = [_axes(frame, (x, y), {share: f"{100 * share:g} %" for share in (0, 0.5, 1)}, axis.ticks(most))]
    parts += [charts.text(0, 10, name, "label"), _zero(frame, y)]
    for trace, points in checkpoints:
        known = [(point["step"], point["dot"][name]) for point in points if point["dot"].get(name)]
        marked = [
            _interval_mark(trace, (step, value), x((trace.offset + step) / max(trace.arm.steps, 1)), (y, axis))
            for step, value in known
        ]
        curve = charts.path([(px, py) for px, py, _ in marked], "curve")
        marks = Markup("").join([curve, *(mark for _, _, mark in marked)])
        parts.append(Markup('<g class="{}">{}</g>').format(charts.series_class(trace.color), marks))
    return charts.svg(frame, parts, f"Dot product with {name} along training")


def _interval_mark(
    trace: Trace, at_step: tuple[int, Mapping[str, float | None]], across: float, scale: tuple[Scale, Bend]
) -> tuple[float, float, Markup]:
    """Where a value stands, and its mark with its interval."""
    y, axis = scale
    step, value = at_step
    up, title = y(axis(value["value"] or 0.0)), f"{trace.label}, step {step}: {significant(value['value'])}"
    low, high = value["low"], value["high"]
    whisker = Markup("")
    if low is not None and high is not None:
        whisker = charts.line(across, y(axis(low)), across, y(axis(high)), "whisker")
        title += f" ({significant(low)} to {significant(high)})"
    mark = Markup("<g>{}{}<title>{}</title></g>").format(whisker, charts.marker(trace.color, across, up, 2.6), title)
    return across, up, mark


def predicted_measured(traces: Sequence[Trace]) -> list[Markup]:
    """Measured over predicted change, one chart a trace, all on one scale; a mark for a prior question and interval."""
    prior = [np.isin(trace.trajectory.benchmarks, trace.prior) for trace in traces]
    columns = [
        {"measured": trace.trajectory.measured[kept]}
        | {kind: v[kept] for kind, v in trace.trajectory.predicted.items()}
        for trace, kept in zip(traces, prior, strict=True)
    ]
    axis, most = bend(value for found in columns for values in found.values() for value in values.tolist())
    return [_scatter(trace, found, axis, most) for trace, found in zip(traces, columns, strict=True)]


def _scatter(trace: Trace, found: dict[str, np.ndarray], axis: Bend, most: float) -> Markup:
    frame = Frame(340, 330, 40, 12, 24, 42)
    end = axis(most) * 1.05
    x, y = frame.scales((-end, end), (-end, end))
    ticks = axis.ticks(most)
    every = max(1, math.ceil(len(found["measured"]) / DRAWN))
    drawn = {
        kind: [
            (x(axis(p)), y(axis(m)))
            for p, m in zip(found[kind][::every].tolist(), found["measured"][::every].tolist(), strict=True)
        ]
        for kind in ("first_order", "trapezoid")
    }
    parts = [
        _axes(frame, (x, y), ticks, ticks),
        charts.text((frame.left + frame.width - frame.right) / 2, frame.height - 6, "predicted →", "label", "middle"),
        charts.text(0, 10, "measured ↑", "label"),
        charts.line(x(-end), y(-end), x(end), y(end), "reference"),
        _zero(frame, y),
        charts.line(x(0), frame.top, x(0), frame.height - frame.bottom, "reference"),
        _marks(drawn["first_order"], "plus", "m-2.2 0h4.4m-2.2 -2.2v4.4"),
        _marks(drawn["trapezoid"], "dots", "h0"),
    ]
    whole = Markup('<g class="{}">{}</g>').format(charts.series_class(trace.color), Markup("").join(parts))
    return charts.svg(frame, [whole], f"Predicted against measured change of prior questions, {trace.label}")


def _marks(points: Sequence[tuple[float, float]], kind: str, shape: str) -> Markup:
    """All marks of a kind as one path, a tenth of the size of elements of their own."""
    drawn = "".join(f"M{charts.px(x)} {charts.px(y)}{shape}" for x, y in points)
    return Markup('<path class="{}" d="{}"/>').format(kind, drawn)


def _zero(frame: Frame, y: Scale) -> Markup:
    return charts.horizontal(frame, y, Level(0.0, kind="zero"))


def _axes(frame: Frame, scales: tuple[Scale, Scale], x_ticks: dict[float, str], y_ticks: dict[float, str]) -> Markup:
    """As `charts.axes`, with given ticks on both axes."""
    x, y = scales
    bottom, right = frame.height - frame.bottom, frame.width - frame.right
    parts = []
    for value, name in y_ticks.items():
        parts.append(charts.line(frame.left, y(value), right, y(value), "grid"))
        parts.append(charts.text(frame.left - 8, y(value) + 4, name, "tick", "end"))
    for value, name in x_ticks.items():
        parts.append(charts.line(x(value), bottom, x(value), bottom + 4, "axis"))
        parts.append(charts.text(x(value), bottom + 18, name, "tick", "middle"))
    return Markup("").join([*parts, charts.line(frame.left, bottom, right, bottom, "axis")])
