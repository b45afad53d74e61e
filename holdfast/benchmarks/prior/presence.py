"""Is there such a thing in a cell? Half of the questions ask for what is not there: a yes is hallucination."""

from __future__ import annotations

import numpy as np

from holdfast.benchmarks.grading.answer import Grade, one_of
from holdfast.benchmarks.question import PriorQuestion
from holdfast.data.world import COLORS, SHAPES, Scene


def ask(scene: Scene, rng: np.random.Generator) -> PriorQuestion | None:
    """Ask for a color or a shape in a cell that holds it or, as often, in one that does not, empty perhaps."""
    wanted, by_color = bool(rng.integers(2)), bool(rng.integers(2))
    place = int(rng.choice([thing.place for thing in scene.things]) if wanted else rng.integers(4))
    thing = scene.at(place)
    look = (thing.color, thing.shape) if thing else ()
    words = [word for word in (COLORS if by_color else SHAPES) if (word in look) == wanted]
    word = words[rng.integers(len(words))]
    prompt = f"Is there {'anything' if by_color else 'a'} {word} in cell {place + 1}?"
    holds = f"{thing.color} {thing.shape}" if thing else "empty"
    return PriorQuestion(scene.image, prompt, "yes" if wanted else "no", f"cell {place + 1} {holds}")


def grade(completion: str, answer: str) -> Grade:
    """Right if yes or no is."""
    return one_of(completion, answer, ("yes", "no"))
