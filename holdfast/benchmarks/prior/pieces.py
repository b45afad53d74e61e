"""Is a piece of a shuffled scene sky or ground? The features that a jigsaw needs, without its skill."""

from __future__ import annotations

import numpy as np
from PIL import Image

from holdfast.benchmarks.grading.answer import Grade, one_of
from holdfast.benchmarks.question import PriorQuestion
from holdfast.data.world import Scene


def ask(scene: Scene, rng: np.random.Generator) -> PriorQuestion | None:
    """Shuffle the four cells and ask where one of them came from."""
    order = rng.permutation(4)
    piece = int(rng.integers(4))
    answer = "sky" if order[piece] < 2 else "ground"
    return PriorQuestion(
        shuffled(scene.image, order), f"Is piece {piece + 1} sky or ground?", answer, f"piece {piece + 1} {answer}"
    )


def shuffled(image: Image.Image, order: np.ndarray) -> Image.Image:
    """The image with the cell `order[i]` at position i."""
    half = image.width // 2
    out = Image.new("RGB", image.size)
    for position, cell in enumerate(order):
        row, column = divmod(int(cell), 2)
        crop = image.crop((column * half, row * half, (column + 1) * half, (row + 1) * half))
        out.paste(crop, ((position % 2) * half, (position // 2) * half))
    return out


def grade(completion: str, answer: str) -> Grade:
    """Right if sky or ground is."""
    return one_of(completion, answer, ("sky", "ground"))
