"""Detection and grounding: the boxes of every thing of a kind, or of the one thing that an expression means."""

from __future__ import annotations

from functools import cache
from itertools import permutations
from typing import NamedTuple

import numpy as np

from holdfast.benchmarks.grading.box_overlap import grade_boxes
from holdfast.benchmarks.grading.boxes import written
from holdfast.benchmarks.question import Annotation, Box, Draw, TargetQuestion
from holdfast.config.targets import Detection
from holdfast.data.grid import LOOKS, Look, grid_scene, scattered
from holdfast.data.grid import SIZE as SIDE
from holdfast.data.world import COLORS, SHAPES, generator

SIZE = (SIDE, SIDE)
COLUMNS = ("boxes",)
MOST = 8
"""Boxes that a question of a public data set asks for at most."""


class Wanted(NamedTuple):
    """What is asked for: words for it, whether it is a single thing, and its class."""

    name: str
    single: bool
    group: str


def ask(target: Detection, draw: Draw) -> TargetQuestion:
    """A scene with the things that are asked for, and with others."""
    rng = generator("detection", draw.seed, draw.split, draw.number)
    looks, wanted = (_one if target.find == "one" else _all)(target, draw, rng)
    scene = grid_scene(rng, looks)
    found = [thing for thing in scene.things if thing.shape == wanted.group]
    if wanted.single:
        found = [thing for thing in found if f"the {thing.color} {thing.shape}" == wanted.name]
    shares = tuple((x1 / SIDE, y1 / SIDE, x2 / SIDE, y2 / SIDE) for x1, y1, x2, y2 in (thing.box for thing in found))
    return _question(Annotation((scene.image,), boxes=shares), wanted, target.raster)


def read(row: Annotation, target: Detection, draw: Draw) -> TargetQuestion | None:
    """Ask for what the row's expression means, or for a kind of thing of which the row has few enough."""
    if row.caption:
        return _question(row, Wanted(row.caption, True, row.label), target.raster) if len(row.boxes) == 1 else None
    most = 1 if target.find == "one" else MOST
    kinds = [kind for kind in sorted(set(row.categories)) if row.categories.count(kind) <= most]
    if not kinds:
        return None
    kind = kinds[generator("kind", draw.seed, draw.split, draw.number).integers(len(kinds))]
    boxes = tuple(box for box, name in zip(row.boxes, row.categories, strict=True) if name == kind)
    single = target.find == "one"
    wanted = Wanted(f"the {kind}" if single else f"every {kind}", single, kind)
    return _question(row._replace(boxes=boxes), wanted, target.raster)


@cache
def chance(target: Detection) -> float:
    """What the answers to other questions score, over all pairs of 60."""
    answers = [ask(target, Draw(0, "chance", index)).answer for index in range(60)]
    pairs = list(permutations(answers, 2))
    return sum(grade_boxes(f"<answer> {given} </answer>", right).score for given, right in pairs) / len(pairs)


def _all(target: Detection, draw: Draw, rng: np.random.Generator) -> tuple[dict[int, Look], Wanted]:
    """Up to four things of one shape and at most as many others; shapes take turns, and so do numbers."""
    shape = SHAPES[draw.turn("shape", len(SHAPES))]
    most = 1 + round(3 * target.difficulty)
    count = 1 + draw.turn(f"count of {shape}", most, draw.number // len(SHAPES))
    others = [other for other in SHAPES if other != shape]
    looks = [(_color(rng), shape) for _ in range(count)]
    looks += [(_color(rng), others[rng.integers(len(others))]) for _ in range(rng.integers(0, most + 1))]
    return scattered(rng, looks), Wanted(f"every {shape}", False, shape)


def _one(target: Detection, draw: Draw, rng: np.random.Generator) -> tuple[dict[int, Look], Wanted]:
    """One thing, whose look takes turns, and others that look otherwise."""
    look = LOOKS[draw.turn("look", len(LOOKS))]
    others = [LOOKS[place] for place in rng.permutation(len(LOOKS)) if LOOKS[place] != look]
    looks = [look, *others[: 1 + round(5 * target.difficulty)]]
    return scattered(rng, looks), Wanted(f"the {look[0]} {look[1]}", True, look[1])


def _color(rng: np.random.Generator) -> str:
    return tuple(COLORS)[rng.integers(len(COLORS))]


def _question(row: Annotation, wanted: Wanted, raster: int) -> TargetQuestion:
    """Boxes in reading order."""
    found = sorted((_rastered(box, raster) for box in row.boxes), key=lambda box: (box[1], box[0], box))
    answer = written(found)
    form = "its box x1 y1 x2 y2" if wanted.single else "boxes x1 y1 x2 y2; x1 y1 x2 y2"
    prompt = f"Where is {wanted.name}? Give {form} in {raster}ths of the image."
    reasoning = f"I look for {wanted.name}. There {'is 1' if len(found) == 1 else f'are {len(found)}'}."
    return TargetQuestion(row.images, prompt, answer, reasoning, wanted.group, "detection")


def _rastered(box: Box, raster: int) -> Box:
    """To the nearest lines of the raster, at least one step wide and high."""
    x1, y1, x2, y2 = (round(side * raster) for side in box)
    left, top = min(x1, raster - 1), min(y1, raster - 1)
    return left, top, min(max(x2, left + 1), raster), min(max(y2, top + 1), raster)
