"""Which digit was written into the scene? Real handwriting, as scikit-learn ships it, split by writer's sample."""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image

from holdfast.benchmarks.grading.answer import Grade, one_of
from holdfast.benchmarks.question import PriorQuestion
from holdfast.data.world import Scene, background

WORDS = tuple(str(digit) for digit in range(10))
SAMPLES = {"test": (1297, 1797), "validation": (1097, 1297)}
"""Of scikit-learn's 1,797 samples, first and one behind the last of those that a split holds back."""
TRAINING = (0, 1097)


@cache
def _handwriting() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return digits.images, digits.target


def ask(scene: Scene, rng: np.random.Generator, split: str = "test") -> PriorQuestion:
    """Write a digit into a random cell of an empty scene of the same size."""
    images, labels = _handwriting()
    index = int(rng.integers(*SAMPLES.get(split, TRAINING)))
    place = int(rng.integers(4))
    answer = str(labels[index])
    image = _written(background(rng, scene.image.width), images[index], place, rng)
    return PriorQuestion(image, "Which digit is written?", answer, f"cell {place + 1} {answer}")


def _written(canvas: np.ndarray, strokes: np.ndarray, place: int, rng: np.random.Generator) -> Image.Image:
    cell = canvas.shape[0] // 2
    side = cell * 7 // 8
    ink = Image.fromarray((strokes * 255 / 16).astype(np.uint8)).resize((side, side), Image.Resampling.BILINEAR)
    image = Image.fromarray(canvas)
    right, down = (int(shift) for shift in rng.integers(0, cell - side + 1, 2))
    image.paste((20, 20, 20), ((place % 2) * cell + right, (place // 2) * cell + down), ink)
    return image


def grade(completion: str, answer: str) -> Grade:
    """Right if the digit is."""
    return one_of(completion, answer, WORDS)
