"""Do two cells hold things of the same color? Half of the questions have the answer yes."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from holdfast.benchmarks.grading.answer import Grade, one_of
from holdfast.benchmarks.question import PriorQuestion
from holdfast.data.world import Scene, Thing


def ask(scene: Scene, rng: np.random.Generator) -> PriorQuestion | None:
    """Ask about two things; none where the scene has pairs of one kind alone, so that neither answer is likelier."""
    pairs: dict[bool, list[tuple[Thing, Thing]]] = {True: [], False: []}
    for first, second in combinations(scene.things, 2):
        pairs[first.color == second.color].append((first, second))
    if not all(pairs.values()):
        return None
    wanted = bool(rng.integers(2))
    first, second = pairs[wanted][rng.integers(len(pairs[wanted]))]
    one, two = first.place + 1, second.place + 1
    prompt = f"Do cells {one} and {two} have the same color?"
    think = f"cell {one} {first.color} cell {two} {second.color}"
    return PriorQuestion(scene.image, prompt, "yes" if wanted else "no", think)


def grade(completion: str, answer: str) -> Grade:
    """Right if yes or no is."""
    return one_of(completion, answer, ("yes", "no"))
