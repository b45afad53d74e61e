"""Pictures for the report: small enough to inline, puzzles put together the way a model answered."""

from __future__ import annotations

import io
from base64 import b64encode
from typing import Literal, NamedTuple

from PIL import Image

from holdfast.benchmarks.grading.boxes import boxes
from holdfast.benchmarks.targets.jigsaw import cut, join
from holdfast.config.targets import Detection, Jigsaw, Target
from holdfast.data.chat import pictures
from holdfast.data.shards import Question

LARGEST = 240
"""Pixels a side; larger pictures are scaled down."""
SHARP = 96
"""Pictures up to this side are shown pixel by pixel, and losslessly."""
NOTHING = (128, 128, 128)


class Outline(NamedTuple):
    """A box on a picture, in shares of its sides."""

    kind: Literal["right", "given"]
    left: float
    top: float
    width: float
    height: float


class Picture(NamedTuple):
    uri: str
    sharp: bool
    rows: int = 1
    columns: int = 1
    marks: tuple[str, ...] = ()
    """What is written on each cell: the number of a piece, or `right` or `wrong`."""
    outlines: tuple[Outline, ...] = ()


def picture(image: Image.Image) -> Picture:
    """An image as a data URI."""
    sharp = max(image.size) <= SHARP
    buffer = io.BytesIO()
    if sharp:
        image.save(buffer, "PNG", optimize=True)
    else:
        small = image.convert("RGB")
        small.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
        small.save(buffer, "JPEG", quality=85)
    kind = "png" if sharp else "jpeg"
    return Picture(f"data:image/{kind};base64,{b64encode(buffer.getvalue()).decode()}", sharp)


def question_pictures(question: Question, target: Target) -> list[Picture]:
    """The question as the model saw it; the pieces of a full question side by side, with their numbers."""
    if not isinstance(target, Jigsaw) or target.question == "pair":
        return [picture(image) for image in pictures(question)]
    numbers = tuple(str(index + target.index_base) for index in range(target.grid[0] * target.grid[1]))
    return [_board(join(_pieces(question, target), target.grid), target, numbers)]


def answer_picture(question: Question, target: Target, answer: str | None) -> Picture | None:
    """What an answer makes of the image: a puzzle put together, its pieces marked, or boxes beside the right ones.

    None if there is nothing to draw.
    """
    if isinstance(target, Detection) and answer is not None:
        outlines = (*_outlines(question.answer, target, "right"), *_outlines(answer, target, "given"))
        return picture(pictures(question)[0])._replace(outlines=outlines)
    if not isinstance(target, Jigsaw) or target.question == "pair" or answer is None:
        return None
    if not all(part.isdecimal() for part in answer.split()):
        return None
    pieces = _pieces(question, target)
    given, right = (placed(text, question.answer, target) for text in (answer, question.answer))
    blank = Image.new("RGB", pieces[0].size, NOTHING)
    board = [blank if piece is None else pieces[piece] for piece in given]
    marks = tuple("right" if a == b else "wrong" for a, b in zip(given, right, strict=True))
    return _board(join(board, target.grid), target, marks)


def solution_picture(question: Question, target: Target) -> Picture | None:
    """What the right answer makes of it."""
    found = answer_picture(question, target, question.answer)
    if found is None:
        return None
    return found._replace(marks=(), outlines=tuple(one for one in found.outlines if one.kind == "right"))


def placed(answer: str, right: str, target: Jigsaw) -> list[int | None]:
    """For every position the piece that a parsed answer puts there, from 0; None where it puts none.

    Where it puts several pieces into one position, the right one is on top.
    """
    numbers, truth = ([int(part) - target.index_base for part in text.split()] for text in (answer, right))
    if target.wording == "position-to-piece":
        return list(numbers)
    pieces = sorted(range(len(numbers)), key=lambda piece: numbers[piece] == truth[piece])
    positions = {numbers[piece]: piece for piece in pieces}
    return [positions.get(position) for position in range(len(numbers))]


def _pieces(question: Question, target: Jigsaw) -> list[Image.Image]:
    images = pictures(question)
    return images if target.layout == "pieces" else cut(images[0], target.grid)


def _board(image: Image.Image, target: Jigsaw, marks: tuple[str, ...]) -> Picture:
    rows, columns = target.grid
    return picture(image)._replace(rows=rows, columns=columns, marks=marks)


def _outlines(answer: str, target: Detection, kind: Literal["right", "given"]) -> list[Outline]:
    """Boxes with an area, as the grader counts no others, cut off at the image's border."""
    found = []
    for box in boxes(answer) or []:
        x1, y1, x2, y2 = (min(max(side / target.raster, 0.0), 1.0) for side in box)
        if x1 < x2 and y1 < y2:
            found.append(Outline(kind, x1, y1, x2 - x1, y2 - y1))
    return found
