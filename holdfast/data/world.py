"""Procedural scenes whose every fact is known: two by two cells between sky and ground, lit from the left.

The gradient from sky to ground and the light's falloff make a shuffled scene solvable from its pieces alone, and the
coloured shapes in its cells are what questions of prior knowledge ask about.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

COLORS = {"red": (220, 38, 38), "green": (22, 163, 74), "blue": (37, 70, 225), "yellow": (250, 210, 30)}
SHAPES = ("circle", "square", "triangle", "cross")


class Thing(NamedTuple):
    """A coloured shape in a cell (0 to 3, row by row; people count from 1); `box` is x1, y1, x2, y2 in pixels."""

    place: int
    color: str
    shape: str
    box: tuple[int, int, int, int]


class Scene(NamedTuple):
    """An image and everything that is in it."""

    image: Image.Image
    things: tuple[Thing, ...]

    def at(self, place: int) -> Thing | None:
        """The thing in a cell (0 to 3, row by row), if there is one."""
        return next((thing for thing in self.things if thing.place == place), None)


def generator(*names: object) -> np.random.Generator:
    """A random generator seeded by all its names, the same in every process."""
    text = "/".join(str(name) for name in names)
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))


def world_scene(seed: int, split: str, index: int, size: int = 64) -> Scene:
    """Scene number `index` of a split; splits share no scene because they share no random stream."""
    return scene(generator("world", seed, split, index), size)


def scene(rng: np.random.Generator, size: int = 64) -> Scene:
    """Draw a scene with a thing in one to four of its cells."""
    image = Image.fromarray(background(rng, size))
    count = int(rng.integers(1, 5))
    places = sorted(int(place) for place in rng.permutation(4)[:count])
    draw = ImageDraw.Draw(image)
    return Scene(image, tuple(_thing(rng, draw, place, size // 2) for place in places))


def background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Sky above ground, darker towards the right, as uint8 of shape (size, size, 3)."""
    height = np.linspace(0, 1, size)[:, None, None]
    across = np.linspace(0, 1, size)[None, :, None]
    sky, ground = rng.normal((165, 205, 245), 8), rng.normal((165, 125, 85), 8)
    horizon = rng.uniform(0.42, 0.58)
    share = 1 / (1 + np.exp(-(height - horizon) * 9))
    light = rng.uniform(1.0, 1.1) - rng.uniform(0.5, 0.65) * across
    return np.clip((sky * (1 - share) + ground * share) * light, 0, 255).astype(np.uint8)


def _thing(rng: np.random.Generator, draw: ImageDraw.ImageDraw, place: int, cell: int) -> Thing:
    color = list(COLORS)[rng.integers(len(COLORS))]
    shape = SHAPES[rng.integers(len(SHAPES))]
    radius = int(rng.integers(cell * 7 // 32, cell * 11 // 32 + 1))
    row, column = divmod(place, 2)
    x = column * cell + int(rng.integers(radius + 2, cell - radius - 1))
    y = row * cell + int(rng.integers(radius + 2, cell - radius - 1))
    box = (x - radius, y - radius, x + radius, y + radius)
    draw_shape(draw, shape, box, COLORS[color])
    return Thing(place, color, shape, box)


def draw_shape(
    draw: ImageDraw.ImageDraw, shape: str, box: tuple[int, int, int, int], color: tuple[int, int, int]
) -> None:
    """Draw a filled shape with a dark outline that touches the sides of its box."""
    x1, y1, x2, y2 = box
    outline = (30, 30, 30)
    third = (x2 - x1) // 3
    if shape == "circle":
        draw.ellipse(box, fill=color, outline=outline)
    elif shape == "square":
        draw.rectangle(box, fill=color, outline=outline)
    elif shape == "triangle":
        draw.polygon([((x1 + x2) // 2, y1), (x2, y2), (x1, y2)], fill=color, outline=outline)
    else:
        a, b, c, d = x1 + third, x2 - third, y1 + third, y2 - third
        corners = [
            (a, y1),
            (b, y1),
            (b, c),
            (x2, c),
            (x2, d),
            (b, d),
            (b, y2),
            (a, y2),
            (a, d),
            (x1, d),
            (x1, c),
            (a, c),
        ]
        draw.polygon(corners, fill=color, outline=outline)
