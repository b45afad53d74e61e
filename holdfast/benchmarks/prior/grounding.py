"""Where is a thing? The answer is a box in sixteenths of the image's sides, right if it overlaps the true one by half.

The measure is intersection over union; RefCOCO's customary limit is 0.5.
"""

from __future__ import annotations

import numpy as np

from holdfast.benchmarks.grading.answer import UNPARSED, Grade
from holdfast.benchmarks.grading.box_overlap import overlap
from holdfast.benchmarks.grading.boxes import answered, written
from holdfast.benchmarks.question import PriorQuestion
from holdfast.data.world import Scene

RASTER = 16


def ask(scene: Scene, rng: np.random.Generator) -> PriorQuestion | None:
    """Ask for a thing that no other thing looks like; none where every thing has a double."""
    looks = [(thing.color, thing.shape) for thing in scene.things]
    unique = [thing for thing, look in zip(scene.things, looks, strict=True) if looks.count(look) == 1]
    if not unique:
        return None
    thing = unique[rng.integers(len(unique))]
    box = " ".join(str(side) for side in raster(thing.box, scene.image.width))
    look = f"{thing.color} {thing.shape}"
    return PriorQuestion(scene.image, f"Where is the {look}?", box, f"{look} cell {thing.place + 1} {box}")


def raster(box: tuple[int, int, int, int], size: int) -> tuple[int, ...]:
    """A box in pixels as one in sixteenths of the image, rounded to the nearest."""
    return tuple((side * RASTER + size // 2) // size for side in box)


def grade(completion: str, answer: str) -> Grade:
    """Right at IoU ≥ 0.5; the score is the IoU."""
    given = answered(completion) or []
    if len(given) != 1:
        return UNPARSED
    iou = overlap(given[0], [int(side) for side in answer.split()])
    return Grade(written(given), iou >= 0.5, iou)
