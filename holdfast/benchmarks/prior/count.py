"""How many things are in the scene?"""

from __future__ import annotations

import numpy as np

from holdfast.benchmarks.grading.answer import Grade, one_of
from holdfast.benchmarks.question import PriorQuestion
from holdfast.data.world import Scene


def ask(scene: Scene, rng: np.random.Generator) -> PriorQuestion | None:
    """Ask for the number of things, one to four."""
    cells = " ".join(str(thing.place + 1) for thing in scene.things)
    return PriorQuestion(scene.image, "How many shapes are there?", str(len(scene.things)), f"cell {cells}")


def grade(completion: str, answer: str) -> Grade:
    """Right if the number is."""
    return one_of(completion, answer, ("1", "2", "3", "4"))
