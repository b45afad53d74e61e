"""How boxes are graded: one by its IoU, sets by the mean IoU of matched boxes over the larger of the two numbers.

Boxes are matched greedily, largest overlap first, as Visual-RFT (arXiv 2503.01785) rewards it. All is right if every
pair overlaps by half. `boxes` reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from holdfast.benchmarks.grading.answer import UNPARSED, Grade
from holdfast.benchmarks.grading.boxes import answered, boxes, written
from holdfast.benchmarks.grading.text import normal
from holdfast.benchmarks.question import Box

RIGHT = 0.5
"""IoU from which on a box is right."""


def grade_box(completion: str, answer: str) -> Grade:
    """Corners x1, y1, x2, y2 with IoU ≥ 0.5; the score is the IoU."""
    given = set(answered(completion) or ())
    if len(given) != 1:
        return UNPARSED
    side = given.pop()
    right = boxes(normal(answer).strip()) or [(0.0, 0.0, 0.0, 0.0)]
    iou = overlap(side, right[0])
    return Grade(written([side]), iou >= RIGHT, iou)


def grade_boxes(completion: str, answer: str) -> Grade:
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


def overlap(first: Sequence[float], second: Sequence[float]) -> float:
    """Intersection over union of two boxes x1, y1, x2, y2; 0 for a box that is none."""
    if first[2] <= first[0] or first[3] <= first[1]:
        return 0.0
    width = max(0, min(first[2], second[2]) - max(first[0], second[0]))
    height = max(0, min(first[3], second[3]) - max(first[1], second[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return width * height / (sum(areas) - width * height)
