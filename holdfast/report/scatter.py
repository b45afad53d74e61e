"""Trajectories through a plane: a curve through its checkpoints for each arm, with its name beside the last one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from holdfast.report import charts
from holdfast.report.charts import Frame, Scale

NAMED = 7
"""More arms than this are told apart by the legend alone."""
Box = tuple[float, float, float, float]


class Spot(NamedTuple):
    """An evaluation, in the chart's coordinates."""

    x: float
    y: float
    title: str
    """Shown when pointed at."""


class Trajectory(NamedTuple):
    """An arm's evaluations in order; `color` is its number in the palette."""

    arm: str
    color: int
    spots: list[Spot]


def decades(x: Scale) -> dict[float, str]:
    """Ticks at 1, 2 and 5 times the powers of ten; at 1 alone where there are many."""
    powers = range(math.floor(x.low), math.ceil(x.high) + 1)
    factors = (1, 2, 5) if x.high - x.low < 2.5 else (1,)
    found = {math.log10(factor * 10.0**power): f"{factor * 10.0**power:g}" for power in powers for factor in factors}
    return {position: name for position, name in found.items() if x.low <= position <= x.high}


def draw_trajectory(trajectory: Trajectory, scales: tuple[Scale, Scale], start: Spot | None = None) -> Markup:
    """A trajectory's spots, the last one larger, joined by a curve that begins at `start`, if there is one."""
    x, y = scales
    marks = []
    for spot in trajectory.spots:
        last = spot is trajectory.spots[-1]
        mark = charts.marker(trajectory.color, x(spot.x), y(spot.y), 6 if last else 3.6)
        marks.append(
            Markup('<g class="{}">{}<title>{}</title></g>').format("last" if last else "early", mark, spot.title)
        )
    joined = [(x(spot.x), y(spot.y)) for spot in ([start] if start else []) + trajectory.spots]
    curve = charts.path(joined, "curve thin")
    return Markup('<g class="{}">{}{}</g>').format(charts.series_class(trajectory.color), curve, Markup("").join(marks))


def trajectory_names(frame: Frame, trajectories: Sequence[Trajectory], scales: tuple[Scale, Scale]) -> Markup:
    """Each arm's name beside its last spot, where it covers the fewest spots and names."""
    if len(trajectories) > NAMED:
        return Markup("")
    x, y = scales
    spots = [(x(spot.x), y(spot.y)) for trajectory in trajectories for spot in trajectory.spots]
    taken: list[Box] = [(px - 5, py - 5, px + 5, py + 5) for px, py in spots]
    names = []
    for trajectory in trajectories:
        name = charts.short(trajectory.arm)
        end = x(trajectory.spots[-1].x), y(trajectory.spots[-1].y)
        box = min(_around(end, 7.2 * len(name)), key=lambda box: _covered(box, taken, frame))
        taken.append(box)
        text = charts.text(box[0], box[3] - 3, name, "name")
        names.append(Markup('<g class="{}">{}</g>').format(charts.series_class(trajectory.color), text))
    return Markup("").join(names)


def _around(end: tuple[float, float], width: float) -> list[Box]:
    """Boxes for a name, the best first."""
    offsets = [(11, 4), (-11 - width, 4), (-width / 2, -13), (-width / 2, 22), (9, -11), (9, 19)]
    offsets += [(-9 - width, -11), (-9 - width, 19), (16, -26), (16, 34)]
    return [(end[0] + dx, end[1] + dy - 11, end[0] + dx + width, end[1] + dy + 3) for dx, dy in offsets]


def _covered(box: Box, taken: Sequence[Box], frame: Frame) -> int:
    outside = box[0] < frame.left or box[2] > frame.width or box[1] < 0 or box[3] > frame.height - frame.bottom
    hit = sum(box[0] < t[2] and t[0] < box[2] and box[1] < t[3] and t[1] < box[3] for t in taken)
    return hit + 100 * outside
