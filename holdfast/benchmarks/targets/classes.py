"""Fine-grained classification: which kind of aircraft is it?

A kind is a set of proportions: where the wings sit, their span, sweep and depth, the tail's span, where the engines
hang. Along each of them the kinds stand at even distances, in an order drawn from the seed; `difficulty` brings them
closer together. Livery, size, heading and place are drawn for every picture and tell nothing.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from holdfast.benchmarks.question import Annotation, Draw, TargetQuestion
from holdfast.config.targets import Classes
from holdfast.data.world import generator

SIZE = (64, 64)
COLUMNS = ("label",)
FINER = 4
"""Pictures are drawn this many times as large and averaged down."""
NAMES = (
    *("Alba", "Brio", "Corvo", "Delta", "Echo", "Falco", "Gull", "Heron"),
    *("Ibis", "Jay", "Kite", "Lark", "Merlin", "Nova", "Osprey", "Petrel"),
)
RANGES = {
    "wings": (0.32, 0.58),
    "span": (0.55, 1.1),
    "sweep": (0.0, 0.5),
    "depth": (0.1, 0.26),
    "tail": (0.18, 0.5),
    "engines": (0.25, 0.75),
}
"""Of each proportion, in lengths of the fuselage; engines in half spans."""
WORDS = {
    "wings": ("The wings sit far forward", "The wings sit in the middle", "The wings sit far back"),
    "span": ("their span is short", "their span is medium", "their span is long"),
    "sweep": ("they are straight", "they are slightly swept", "they are swept"),
}
CLOSEST = 0.15
"""Share of its range that a proportion still covers at difficulty 1."""
SPREAD = 0.02
"""Standard deviation of a proportion within a kind, as a share of its range."""


def ask(target: Classes, draw: Draw) -> TargetQuestion:
    """A picture of the kind whose turn it is."""
    kind = draw.turn("kind", target.classes)
    shape = kinds(target, draw.seed)[kind]
    rng = generator("aircraft", draw.seed, draw.split, draw.number)
    reasoning = f"{', '.join(_words(name, shape[name]) for name in WORDS)}. So it is the {NAMES[kind]}."
    prompt = _prompt(NAMES[: target.classes] if target.names else ())
    return TargetQuestion((_picture(shape, rng),), prompt, NAMES[kind], reasoning, NAMES[kind], "exact")


def read(row: Annotation, target: Classes, _draw: Draw) -> TargetQuestion | None:
    """Ask for the row's class."""
    if not row.label:
        return None
    reasoning = f"I compare shape, proportions and details. They are those of {row.label}."
    prompt = _prompt(row.labels if target.names else ())
    return TargetQuestion(row.images, prompt, row.label, reasoning, row.label, "exact")


def chance(target: Classes) -> float:
    """Kinds are equally frequent."""
    return 1 / target.classes


def kinds(target: Classes, seed: int) -> list[dict[str, float]]:
    """The proportions of every kind."""
    cover = 1 - (1 - CLOSEST) * target.difficulty
    columns = {}
    for name, (low, high) in RANGES.items():
        order = generator("kinds", seed, name, target.classes).permutation(target.classes)
        places = 0.5 + cover * (order / (target.classes - 1) - 0.5)
        columns[name] = (low + (high - low) * places).tolist()
    return [{name: columns[name][kind] for name in RANGES} for kind in range(target.classes)]


def _prompt(names: tuple[str, ...]) -> str:
    if not names:
        return "Which kind is shown?"
    return f"Which kind is shown: {', '.join(names)}?"


def _words(name: str, value: float) -> str:
    low, high = RANGES[name]
    return WORDS[name][min(2, int(3 * (value - low) / (high - low)))]


def _picture(shape: dict[str, float], rng: np.random.Generator) -> Image.Image:
    side = SIZE[0] * FINER
    own = {name: value + SPREAD * (high - low) * rng.normal() for (name, value), (low, high) in _with_ranges(shape)}
    sky = tuple(int(part) for part in rng.integers((110, 150, 190), (190, 215, 250)))
    image = Image.new("RGB", (side, side), sky)
    place = _Place(
        rng.uniform(0.42, 0.58, 2) * side, rng.uniform(0.62, 0.78) * side, math.radians(rng.uniform(-60, 60))
    )
    body, wing = (tuple(int(part) for part in rng.integers(20, 256, 3)) for _ in range(2))
    draw = ImageDraw.Draw(image)
    for outline, color in _outlines(own, body, wing):
        draw.polygon(place(outline), fill=color, outline=(30, 30, 30))
    pixels = np.asarray(image.reduce(FINER)) + rng.normal(0, 6, (SIZE[1], SIZE[0], 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _with_ranges(shape: dict[str, float]) -> list[tuple[tuple[str, float], tuple[float, float]]]:
    return [(item, RANGES[item[0]]) for item in shape.items()]


class _Place:
    """From fuselage lengths, nose up and centred, to pixels."""

    def __init__(self, centre: np.ndarray, scale: float, angle: float) -> None:
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        self.turn, self.centre = turn * scale, centre

    def __call__(self, outline: list[tuple[float, float]]) -> list[tuple[float, float]]:
        return [tuple(point) for point in (np.array(outline) - (0, 0.5)) @ self.turn.T + self.centre]


def _outlines(
    shape: dict[str, float], body: tuple[int, ...], wing: tuple[int, ...]
) -> list[tuple[list[tuple[float, float]], tuple[int, ...]]]:
    """Polygons from back to front: x across, y from the nose (0) to the tail (1)."""
    found = [
        (_wings(shape["wings"], shape["span"], shape["depth"], shape["sweep"]), wing),
        (_wings(0.86, shape["tail"], 0.1, 0.3), wing),
        ([(-0.06, 0.1), (0, 0), (0.06, 0.1), (0.05, 0.8), (0, 1), (-0.05, 0.8)], body),
    ]
    for side in (-1, 1):
        x = side * shape["engines"] * shape["span"] / 2
        y = shape["wings"] + shape["sweep"] * abs(x) - 0.06
        found.append(([(x - 0.04, y), (x + 0.04, y), (x + 0.04, y + 0.13), (x - 0.04, y + 0.13)], body))
    return found


def _wings(front: float, span: float, depth: float, sweep: float) -> list[tuple[float, float]]:
    """Both wings as one polygon; `sweep` is how far they go back for each unit across."""
    tip, back = span / 2, front + sweep * span / 2
    return [
        (0, front),
        (tip, back),
        (tip, back + depth / 2),
        (0, front + depth),
        (-tip, back + depth / 2),
        (-tip, back),
    ]
