"""Descriptions of whole scenes, for the bundled base alone: each names every cell, where a question asks about one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from PIL import Image

from holdfast.benchmarks.grounding import raster
from holdfast.benchmarks.pieces import shuffled
from holdfast.data.world import Scene, generator, world_scene


class Caption(NamedTuple):
    """An image with a request to describe it and the description."""

    image: Image.Image
    prompt: str
    text: str


def captions(number: int, seed: int, split: str = "train") -> Iterator[Caption]:
    """Captions of what the cells hold, of where it is, and of which pieces of a shuffled scene are sky, in turn."""
    for index in range(number):
        scene = world_scene(seed, f"captions/{split}", index)
        if index % 3 == 0:
            yield Caption(scene.image, "Describe every cell.", " ".join(_cell(scene, place) for place in range(4)))
        elif index % 3 == 1:
            yield Caption(scene.image, "Where is everything?", " ".join(_boxes(scene)))
        else:
            order = generator("caption", seed, split, index).permutation(4)
            rows = ("sky" if cell < 2 else "ground" for cell in order)
            text = " ".join(f"piece {number} {row}" for number, row in enumerate(rows, 1))
            yield Caption(shuffled(scene.image, order), "Describe every piece.", text)


def _cell(scene: Scene, place: int) -> str:
    thing = scene.at(place)
    return f"cell {place + 1} {thing.color} {thing.shape}" if thing else f"cell {place + 1} empty"


def _boxes(scene: Scene) -> Iterator[str]:
    for thing in scene.things:
        box = " ".join(map(str, raster(thing.box, scene.image.width)))
        yield f"{thing.color} {thing.shape} cell {thing.place + 1} {box}"
