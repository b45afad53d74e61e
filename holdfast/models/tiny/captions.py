"""Descriptions of whole scenes, for the bundled base alone: each names every cell, where a question asks about one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

import numpy as np
from PIL import Image

from holdfast.benchmarks.prior.grounding import raster
from holdfast.benchmarks.prior.pieces import shuffled
from holdfast.data.world import SHAPES, Scene, generator, world_scene


class Caption(NamedTuple):
    """An image with a request to describe it and the description."""

    image: Image.Image
    prompt: str
    text: str


def captions(number: int, seed: int, split: str = "train") -> Iterator[Caption]:
    """Captions of what the cells hold and where it is, of which things are alike, and of a shuffled scene, in turn.

    Whether two words are the same takes a model long to find when one yes or no a question teaches it; a caption holds
    several.
    """
    for index in range(number):
        scene = world_scene(seed, f"captions/{split}", index)
        rng = generator("caption", seed, split, index)
        yield (_cells, _places, _pieces, _alike, _held)[index % 5](scene, rng)


def _cells(scene: Scene, rng: np.random.Generator) -> Caption:
    return Caption(scene.image, "Describe every cell.", " ".join(_cell(scene, place) for place in range(4)))


def _places(scene: Scene, rng: np.random.Generator) -> Caption:
    return Caption(scene.image, "Where is everything?", " ".join(_boxes(scene)))


def _pieces(scene: Scene, rng: np.random.Generator) -> Caption:
    order = rng.permutation(4)
    rows = ("sky" if cell < 2 else "ground" for cell in order)
    text = " ".join(f"piece {number} {row}" for number, row in enumerate(rows, 1))
    return Caption(shuffled(scene.image, order), "Describe every piece.", text)


def _alike(scene: Scene, rng: np.random.Generator) -> Caption:
    """At most three pairs of things, in any order; a thing alone is held against a shape instead."""
    pairs = list(combinations(scene.things, 2))
    if not pairs:
        return _held(scene, rng)
    chosen = [pairs[index] for index in rng.permutation(len(pairs))[:3]]
    text = " ".join(
        f"cell {one.place + 1} {one.color} cell {two.place + 1} {two.color} {_yes(one.color == two.color)}"
        for one, two in chosen
    )
    return Caption(scene.image, "Which cells have the same color?", text)


def _held(scene: Scene, rng: np.random.Generator) -> Caption:
    """Every cell, held against a shape that is there more often than not."""
    shape = SHAPES[rng.integers(len(SHAPES))] if rng.random() < 0.3 else scene.things[0].shape
    things = ((scene.at(place), _cell(scene, place)) for place in range(4))
    text = " ".join(f"{cell} {_yes(thing is not None and thing.shape == shape)}" for thing, cell in things)
    return Caption(scene.image, f"Which cells hold a {shape}?", text)


def _yes(true: bool) -> str:
    return "yes" if true else "no"


def _cell(scene: Scene, place: int) -> str:
    thing = scene.at(place)
    return f"cell {place + 1} {thing.color} {thing.shape}" if thing else f"cell {place + 1} empty"


def _boxes(scene: Scene) -> Iterator[str]:
    for thing in scene.things:
        box = " ".join(map(str, raster(thing.box, scene.image.width)))
        yield f"{thing.color} {thing.shape} cell {thing.place + 1} {box}"
