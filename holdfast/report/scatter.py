"""Arms as walks through a plane: skill against retention, and drift against forgetting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from holdfast.analysis.forgetting import FrontierPoint
from holdfast.analysis.records import ArmRun
from holdfast.report import charts
from holdfast.report.charts import Frame, Level, Scale

DRIFT = "kl/target"
NAMED = 7
"""More arms than this are told apart by the legend alone."""
Box = tuple[float, float, float, float]


class Spot(NamedTuple):
    """An evaluation, in the plane's coordinates."""

    x: float
    y: float
    told: str
    """Shown when pointed at."""


class Walk(NamedTuple):
    """An arm's evaluations in order; `color` is its place in the palette."""

    arm: str
    color: int
    spots: list[Spot]


def frontier(
    trajectories: dict[str, list[FrontierPoint]], front: Sequence[FrontierPoint], skill: Sequence[Level], guess: Level
) -> Markup:
    """Skill against retention, from the base model on."""
    walks = [
        Walk(arm, index, [Spot(p.score, p.retention, f"{arm}, step {p.step}: {_told(p)}") for p in path])
        for index, (arm, path) in enumerate(trajectories.items())
    ]
    spots = [spot for walk in walks for spot in walk.spots]
    frame = Frame(720, 420, 40, 24, 36, 44)
    known = [level.value for level in skill if level.value is not None]
    top = max(1.05, max(spot.y for spot in spots) + 0.05)
    x, y = frame.scales(_range([*(spot.x for spot in spots), *known], (0, 1)), (0, top))
    base = walks[0].spots[0]
    parts = [
        charts.axes(frame, x, y, ("skill: target score →", "retention ↑")),
        *(charts.vertical(frame, x, level) for level in skill),
        charts.path([(x(place.score), y(place.retention)) for place in front], "front"),
        charts.horizontal(frame, y, guess),
        *(drawn(walk._replace(spots=walk.spots[1:]), (x, y), base) for walk in walks),
        _base(frame, x(base.x), y(base.y)),
        named(frame, walks, (x, y)),
    ]
    return charts.svg(frame, parts, "Skill against retention")


def _base(frame: Frame, x: float, y: float) -> Markup:
    beside = x - 44 > frame.left
    name = charts.text(x - 10, y + 4, "base", "name", "end") if beside else charts.text(x + 8, y - 9, "base", "name")
    return Markup('<g class="base">{}{}</g>').format(charts.marker(0, x, y, 6), name)


def _told(place: FrontierPoint) -> str:
    return f"score {place.score:.3f}, retention {place.retention:.3f}"


def drift(arms: Sequence[ArmRun]) -> Markup | None:
    """Distance from the base, on a logarithmic axis, against mean forgetting; None where no drift was measured."""
    walks = [walk for index, arm in enumerate(arms) if (walk := _drifted(index, arm)).spots]
    if not walks:
        return None
    spots = [spot for walk in walks for spot in walk.spots]
    frame = Frame(720, 360, 44, 24, 22, 44)
    low, high = min(spot.x for spot in spots), max(spot.x for spot in spots)
    x, y = frame.scales((low - 0.15, high + 0.15), _range([0.0, *(spot.y for spot in spots)], (-1, 1)))
    parts = [
        charts.axes(frame, x, y, ("drift: KL(base ‖ now), nats per token →", "mean forgetting ↑"), decades(x)),
        charts.horizontal(frame, y, Level(0.0, "nothing forgotten")),
        *(drawn(walk, (x, y)) for walk in walks),
        named(frame, walks, (x, y)),
    ]
    return charts.svg(frame, parts, "Drift against forgetting")


def _drifted(index: int, arm: ArmRun) -> Walk:
    base = arm.points[0].prior_mean
    drifts = [(point, base - point.prior_mean) for point in arm.points if 0 < point.metrics.get(DRIFT, 0.0) < math.inf]
    return Walk(
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


def decades(x: Scale) -> dict[float, str]:
    """Ticks at 1, 2 and 5 times the powers of ten; at 1 alone where there are many."""
    powers = range(math.floor(x.low), math.ceil(x.high) + 1)
    factors = (1, 2, 5) if x.high - x.low < 2.5 else (1,)
    found = {math.log10(factor * 10.0**power): f"{factor * 10.0**power:g}" for power in powers for factor in factors}
    return {position: name for position, name in found.items() if x.low <= position <= x.high}


def _range(values: Sequence[float], bounds: tuple[float, float]) -> tuple[float, float]:
    """Of an axis: the values with some air, widened to tenths."""
    low, high = math.floor(min(values) * 10 - 0.3) / 10, math.ceil(max(values) * 10 + 0.3) / 10
    return max(bounds[0], low), min(bounds[1], high)


def drawn(walk: Walk, scales: tuple[Scale, Scale], start: Spot | None = None) -> Markup:
    """A walk's spots, the last one larger, joined by a curve that begins at `start`, if there is one."""
    x, y = scales
    marks = []
    for spot in walk.spots:
        last = spot is walk.spots[-1]
        mark = charts.marker(walk.color, x(spot.x), y(spot.y), 6 if last else 3.6)
        marks.append(
            Markup('<g class="{}">{}<title>{}</title></g>').format("last" if last else "early", mark, spot.told)
        )
    joined = [(x(spot.x), y(spot.y)) for spot in ([start] if start else []) + walk.spots]
    curve = charts.path(joined, "curve thin")
    return Markup('<g class="{}">{}{}</g>').format(charts.series_class(walk.color), curve, Markup("").join(marks))


def named(frame: Frame, walks: Sequence[Walk], scales: tuple[Scale, Scale]) -> Markup:
    """Each arm's name beside its last spot, where it covers the fewest spots and names."""
    if len(walks) > NAMED:
        return Markup("")
    x, y = scales
    spots = [(x(spot.x), y(spot.y)) for walk in walks for spot in walk.spots]
    taken: list[Box] = [(px - 5, py - 5, px + 5, py + 5) for px, py in spots]
    names = []
    for walk in walks:
        name = charts.short(walk.arm)
        end = x(walk.spots[-1].x), y(walk.spots[-1].y)
        box = min(_around(end, 7.2 * len(name)), key=lambda box: _covered(box, taken, frame))
        taken.append(box)
        text = charts.text(box[0], box[3] - 3, name, "name")
        names.append(Markup('<g class="{}">{}</g>').format(charts.series_class(walk.color), text))
    return Markup("").join(names)


def _around(end: tuple[float, float], width: float) -> list[Box]:
    """Places for a name, the best first."""
    offsets = [(11, 4), (-11 - width, 4), (-width / 2, -13), (-width / 2, 22), (9, -11), (9, 19)]
    offsets += [(-9 - width, -11), (-9 - width, 19), (16, -26), (16, 34)]
    return [(end[0] + dx, end[1] + dy - 11, end[0] + dx + width, end[1] + dy + 3) for dx, dy in offsets]


def _covered(box: Box, taken: Sequence[Box], frame: Frame) -> int:
    outside = box[0] < frame.left or box[2] > frame.width or box[1] < 0 or box[3] > frame.height - frame.bottom
    hit = sum(box[0] < t[2] and t[0] < box[2] and box[1] < t[3] and t[1] < box[3] for t in taken)
    return hit + 100 * outside
