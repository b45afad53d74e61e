"""The figures of a study: measures along training, skill against retention, drift against forgetting.

An arm has the same color and marker in every figure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from markupsafe import Markup

from holdfast.analysis.forgetting import FrontierPoint
from holdfast.analysis.records import ArmRun, Point
from holdfast.report import charts
from holdfast.report.charts import Frame, Level, horizontal
from holdfast.report.scatter import Spot, Trajectory, decades, draw_trajectory, trajectory_names

DRIFT = "kl/target"


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


def frontier(
    paths: dict[str, list[FrontierPoint]], front: Sequence[FrontierPoint], skill: Sequence[Level], guess: Level
) -> Markup:
    """Skill against retention, from the base model on."""
    trajectories = [
        Trajectory(arm, index, [Spot(p.score, p.retention, f"{arm}, step {p.step}: {_point_text(p)}") for p in path])
        for index, (arm, path) in enumerate(paths.items())
    ]
    spots = [spot for trajectory in trajectories for spot in trajectory.spots]
    frame = Frame(720, 420, 40, 24, 36, 44)
    known = [level.value for level in skill if level.value is not None]
    top = max(1.05, max(spot.y for spot in spots) + 0.05)
    x, y = frame.scales(_range([*(spot.x for spot in spots), *known], (0, 1)), (0, top))
    base = trajectories[0].spots[0]
    parts = [
        charts.axes(frame, x, y, ("skill: target score →", "retention ↑")),
        *(charts.vertical(frame, x, level) for level in skill),
        charts.path([(x(point.score), y(point.retention)) for point in front], "front"),
        charts.horizontal(frame, y, guess),
        *(
            draw_trajectory(trajectory._replace(spots=trajectory.spots[1:]), (x, y), base)
            for trajectory in trajectories
        ),
        _base(frame, x(base.x), y(base.y)),
        trajectory_names(frame, trajectories, (x, y)),
    ]
    return charts.svg(frame, parts, "Skill against retention")


def _base(frame: Frame, x: float, y: float) -> Markup:
    beside = x - 44 > frame.left
    name = charts.text(x - 10, y + 4, "base", "name", "end") if beside else charts.text(x + 8, y - 9, "base", "name")
    return Markup('<g class="base">{}{}</g>').format(charts.marker(0, x, y, 6), name)


def _point_text(point: FrontierPoint) -> str:
    return f"score {point.score:.3f}, retention {point.retention:.3f}"


def drift(arms: Sequence[ArmRun]) -> Markup | None:
    """Distance from the base, on a logarithmic axis, against mean forgetting; None where no drift was measured."""
    trajectories = [trajectory for index, arm in enumerate(arms) if (trajectory := _drifted(index, arm)).spots]
    if not trajectories:
        return None
    spots = [spot for trajectory in trajectories for spot in trajectory.spots]
    frame = Frame(720, 360, 44, 24, 22, 44)
    low, high = min(spot.x for spot in spots), max(spot.x for spot in spots)
    x, y = frame.scales((low - 0.15, high + 0.15), _range([0.0, *(spot.y for spot in spots)], (-1, 1)))
    parts = [
        charts.axes(frame, x, y, ("drift: KL(base ‖ now), nats per token →", "mean forgetting ↑"), decades(x)),
        charts.horizontal(frame, y, Level(0.0, "nothing forgotten")),
        *(draw_trajectory(trajectory, (x, y)) for trajectory in trajectories),
        trajectory_names(frame, trajectories, (x, y)),
    ]
    return charts.svg(frame, parts, "Drift against forgetting")


def _drifted(index: int, arm: ArmRun) -> Trajectory:
    base = arm.points[0].prior_mean
    drifts = [(point, base - point.prior_mean) for point in arm.points if 0 < point.metrics.get(DRIFT, 0.0) < math.inf]
    return Trajectory(
        arm.name,
        index,
        [
            Spot(
                math.log10(p.metrics[DRIFT]),
                lost,
                f"{arm.name}, step {p.step}: {p.metrics[DRIFT]:.3g} nats, {lost:.3f}",
            )
            for p, lost in drifts
        ],
    )


def _range(values: Sequence[float], bounds: tuple[float, float]) -> tuple[float, float]:
    """Of an axis: the values with some air, widened to tenths."""
    low, high = math.floor(min(values) * 10 - 0.3) / 10, math.ceil(max(values) * 10 + 0.3) / 10
    return max(bounds[0], low), min(bounds[1], high)
