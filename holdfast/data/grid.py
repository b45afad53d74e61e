"""Scenes of three by three cells, for targets that need more room than the world's two by two.

Every cell is one image token of the bundled model; shapes, colors and sky are the world's.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw

from holdfast.data.world import COLORS, SHAPES, Scene, Thing, background, draw_shape

CELL = 32
CELLS = 3
PLACES = CELLS * CELLS
SIZE = CELL * CELLS
"""Side of a scene in pixels."""

Look = tuple[str, str]
"""Color and shape."""
LOOKS: tuple[Look, ...] = tuple((color, shape) for color in COLORS for shape in SHAPES)


def plural(shape: str) -> str:
    """Several of a shape."""
    return f"{shape}es" if shape.endswith("s") else f"{shape}s"


def grid_scene(rng: np.random.Generator, looks: Mapping[int, Look]) -> Scene:
    """A scene with a thing of this look in each of these cells (0 to 8, row by row)."""
    image = Image.fromarray(background(rng, SIZE))
    draw = ImageDraw.Draw(image)
    things = tuple(_thing(rng, draw, place, looks[place]) for place in sorted(looks))
    return Scene(image, things)


def scattered(rng: np.random.Generator, looks: list[Look]) -> dict[int, Look]:
    """These looks in cells drawn at random."""
    return {int(place): look for place, look in zip(rng.permutation(PLACES), looks, strict=False)}


def _thing(rng: np.random.Generator, draw: ImageDraw.ImageDraw, place: int, look: Look) -> Thing:
    color, shape = look
    radius = int(rng.integers(7, 12))
    row, column = divmod(place, CELLS)
    x = column * CELL + int(rng.integers(radius + 2, CELL - radius - 1))
    y = row * CELL + int(rng.integers(radius + 2, CELL - radius - 1))
    box = (x - radius, y - radius, x + radius, y + radius)
    draw_shape(draw, shape, box, COLORS[color])
    return Thing(place, color, shape, box)
