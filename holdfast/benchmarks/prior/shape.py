"""Which shape is in a cell?"""

from __future__ import annotations

import numpy as np

from holdfast.benchmarks.grading.answer import Grade, one_of
from holdfast.benchmarks.question import PriorQuestion
from holdfast.data.world import SHAPES, Scene


def ask(scene: Scene, rng: np.random.Generator) -> PriorQuestion | None:
    """Ask about a random thing."""
    thing = scene.things[rng.integers(len(scene.things))]
    cell = thing.place + 1
    return PriorQuestion(
        scene.image, f"Which shape is in cell {cell}?", thing.shape, f"cell {cell} {thing.color} {thing.shape}"
    )


def grade(completion: str, answer: str) -> Grade:
    """Right if the shape's name is."""
    return one_of(completion, answer, SHAPES)
