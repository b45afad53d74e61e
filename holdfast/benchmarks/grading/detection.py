"""Sets of boxes: the mean IoU of matched boxes over the larger of the two numbers of boxes.

Boxes are matched greedily, largest overlap first, as Visual-RFT (arXiv 2503.01785) rewards it. All is right if every
pair overlaps by half.
"""

from __future__ import annotations

from itertools import product

from holdfast.benchmarks.grading.answer import UNPARSED, Grade, overlap
from holdfast.benchmarks.grading.boxes import answered, boxes, written
from holdfast.benchmarks.grading.text import normal
from holdfast.benchmarks.question import Box

RIGHT = 0.5


def grade(completion: str, answer: str) -> Grade:
    """Unparsed unless there are four numbers for every box; a box without an area overlaps nothing."""
    given = answered(completion)
    if given is None:
        return UNPARSED
    wanted = boxes(normal(answer).strip()) or []
    pairs = matched(given, wanted)
    score = min(1.0, sum(pairs) / max(len(given), len(wanted)))
    right = len(given) == len(wanted) == sum(iou >= RIGHT for iou in pairs)
    return Grade(written(given), right, score)


def matched(given: list[Box], wanted: list[Box]) -> list[float]:
    """Overlaps of pairs, largest first, no box in two of them. Ties go by coordinates, so no order matters."""
    pairs = [(-overlap(a, b), a, b, i, j) for (i, a), (j, b) in product(enumerate(given), enumerate(wanted))]
    used: set[tuple[str, int]] = set()
    found = []
    for negative, _, _, i, j in sorted(pairs):
        if negative < 0 and not used & {("given", i), ("wanted", j)}:
            used |= {("given", i), ("wanted", j)}
            found.append(-negative)
    return found
