"""A small plotting kit: SVG that takes its colors from the page, so one file serves light, dark and print.

Markup of our own instead of a plotting library: text stays text, nothing is fetched, and the bytes depend on the
data alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

COLORS = 8
"""How many colors the style sheet defines as --c0, --c1, …; further series repeat them, dashed."""

Corners = tuple[tuple[float, float], ...]
ARM, TIP = 0.45, 1.4
SHAPES: tuple[Corners, ...] = (
    (),
    ((-1, -1), (1, -1), (1, 1), (-1, 1)),
    ((0, -1.25), (1.2, 0.95), (-1.2, 0.95)),
    ((0, -TIP), (TIP, 0), (0, TIP), (-TIP, 0)),
    ((0, 1.25), (1.2, -0.95), (-1.2, -0.95)),
    (
        *((-TIP, -ARM), (-ARM, -ARM), (-ARM, -TIP), (ARM, -TIP), (ARM, -ARM), (TIP, -ARM)),
        *((TIP, ARM), (ARM, ARM), (ARM, TIP), (-ARM, TIP), (-ARM, ARM), (-TIP, ARM)),
    ),
)
"""Corners of the markers for size 1; the first is a circle."""


class Scale(NamedTuple):
    """Maps [low, high] to pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


class Frame(NamedTuple):
    """Size and margins of a chart in pixels."""

    width: int = 520
    height: int = 300
    left: int = 44
    right: int = 92
    top: int = 14
    bottom: int = 40

    def scales(self, x: tuple[float, float], y: tuple[float, float]) -> tuple[Scale, Scale]:
        return (
            Scale(*x, self.left, self.width - self.right),
            Scale(*y, self.height - self.bottom, self.top),
        )


class Level(NamedTuple):
    """A horizontal or vertical reference line."""

    value: float | None
    name: str = ""
    kind: str = "reference"
    above: bool = False
    """Whether the name stands above its line."""


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers within [low, high]."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 10) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def spread(positions: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move labels apart by at least `gap`, in order, as little as a sweep down and a sweep up need."""
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    moved = list(positions)
    for before, index in zip([None, *order], order, strict=False):
        moved[index] = max(moved[index], low if before is None else moved[before] + gap)
    for after, index in zip([None, *order[::-1]], order[::-1], strict=False):
        moved[index] = min(moved[index], high if after is None else moved[after] - gap)
    return moved


def series_class(index: int) -> str:
    """Color of a series; beyond the palette also dashed."""
    return f"c{index % COLORS}" + (" again" if index >= COLORS else "")


def marker(index: int, x: float, y: float, size: float = 4.0) -> Markup:
    """A shape of its own for each series, so that color is never the only difference."""
    corners = SHAPES[index % len(SHAPES)]
    if not corners:
        return Markup('<circle class="mark" cx="{}" cy="{}" r="{}"/>').format(px(x), px(y), px(size))
    points = " ".join(f"{px(x + dx * size * 0.9)},{px(y + dy * size * 0.9)}" for dx, dy in corners)
    return Markup('<polygon class="mark" points="{}"/>').format(points)


def px(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def text(x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> Markup:
    return Markup('<text x="{}" y="{}" class="{}" text-anchor="{}">{}</text>').format(
        px(x), px(y), kind, anchor, content
    )


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return Markup('<line x1="{}" y1="{}" x2="{}" y2="{}" class="{}"/>').format(px(x1), px(y1), px(x2), px(y2), kind)


def path(points: Sequence[tuple[float, float]], kind: str) -> Markup:
    return Markup('<polyline points="{}" class="{}"/>').format(" ".join(f"{px(x)},{px(y)}" for x, y in points), kind)


def axes(frame: Frame, x: Scale, y: Scale, labels: tuple[str, str], x_ticks: dict[float, str] | None = None) -> Markup:
    """Horizontal grid lines, tick labels and the axes' names."""
    bottom, right = frame.height - frame.bottom, frame.width - frame.right
    parts = []
    for value in ticks(y.low, y.high, max(2, (bottom - frame.top) // 48)):
        parts.append(line(frame.left, y(value), right, y(value), "grid"))
        parts.append(text(frame.left - 8, y(value) + 4, tick_label(value), "tick", "end"))
    if x_ticks is None:
        x_ticks = {value: tick_label(value) for value in ticks(x.low, x.high, max(2, (right - frame.left) // 80))}
    for value, name in x_ticks.items():
        parts.append(line(x(value), bottom, x(value), bottom + 4, "axis"))
        parts.append(text(x(value), bottom + 18, name, "tick", "middle"))
    parts.append(line(frame.left, bottom, right, bottom, "axis"))
    parts.append(text((frame.left + right) / 2, frame.height - 4, labels[0], "label", "middle"))
    parts.append(text(0, 10, labels[1], "label"))
    return Markup("").join(parts)


def tick_label(value: float) -> str:
    return f"{value:.10g}".replace("-", "−")


def short(name: str, limit: int = 12) -> str:
    """A name that fits beside a mark."""
    return name if len(name) <= limit else f"{name[: limit // 2 - 1]}…{name[-limit // 2 :]}"


def horizontal(frame: Frame, y: Scale, level: Level) -> Markup:
    """A reference line across the chart; nothing if its value is unknown."""
    if level.value is None:
        return Markup("")
    right = frame.width - frame.right
    drawn = line(frame.left, y(level.value), right, y(level.value), level.kind)
    height = y(level.value) + (-6 if level.above else 14)
    return drawn + text(frame.left + 4, height, level.name, "note")


def vertical(frame: Frame, x: Scale, level: Level) -> Markup:
    """A reference line up the chart; nothing if its value is unknown or outside."""
    if level.value is None or not x.low <= level.value <= x.high:
        return Markup("")
    bottom = frame.height - frame.bottom
    label = text(x(level.value), frame.top - 5, level.name, "note", "middle")
    return line(x(level.value), frame.top, x(level.value), bottom, level.kind) + label


def svg(frame: Frame, parts: Sequence[Markup], title: str) -> Markup:
    """The finished chart; `title` is what a screen reader says."""
    return Markup(
        '<svg class="chart" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img" aria-label="{title}">{body}</svg>'
    ).format(w=frame.width, h=frame.height, title=escape(title), body=Markup("").join(parts))


def swatch(index: int) -> Markup:
    """The key to a series' color and marker."""
    return Markup('<svg class="swatch {}" viewBox="0 0 26 12" width="26" height="12">{}{}</svg>').format(
        series_class(index), line(1, 6, 25, 6, "curve"), marker(index, 13, 6)
    )
