"""Pictures for the report: small enough to inline, puzzles put together the way a model answered."""

from __future__ import annotations

import io
from base64 import b64encode
from typing import NamedTuple

from PIL import Image

from holdfast.benchmarks.jigsaw import cut, join
from holdfast.config import Jigsaw, Target
from holdfast.data.conversations import pictures
from holdfast.data.shards import Question

LARGEST = 240
"""Pixels a side; larger pictures are scaled down."""
SHARP = 96
"""Pictures up to this side are shown pixel by pixel, and losslessly."""
NOTHING = (128, 128, 128)


class Picture(NamedTuple):
    uri: str
    sharp: bool
    rows: int = 1
    columns: int = 1
    marks: tuple[str, ...] = ()
    """What is written on each cell: the number of a piece, or `right` or `wrong`."""


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


def shown(question: Question, target: Target) -> list[Picture]:
    """The question as the model saw it; the pieces of a full question side by side, with their numbers."""
    if not isinstance(target, Jigsaw) or target.question == "pair":
        return [picture(image) for image in pictures(question)]
    numbers = tuple(str(index + target.index_base) for index in range(target.grid[0] * target.grid[1]))
    return [_board(join(_pieces(question, target), target.grid), target, numbers)]


def assembled(question: Question, target: Target, answer: str | None) -> Picture | None:
    """The picture that a full question's answer makes, its pieces marked; None if there is nothing to put together."""
    if not isinstance(target, Jigsaw) or target.question == "pair" or answer is None:
        return None
    pieces = _pieces(question, target)
    given, right = (placed(text, question.answer, target) for text in (answer, question.answer))
    blank = Image.new("RGB", pieces[0].size, NOTHING)
    board = [blank if piece is None else pieces[piece] for piece in given]
    marks = tuple("right" if a == b else "wrong" for a, b in zip(given, right, strict=True))
    return _board(join(board, target.grid), target, marks)


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
