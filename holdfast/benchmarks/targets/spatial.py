"""Spatial aptitude: how two things lie to each other, how many lie on one side, and where a thing is for a viewer.

The three kinds of question take turns, and within a kind its answers do. The white arrow of a perspective question
stands for somebody who looks where it points.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from typing import NamedTuple

import numpy as np
from PIL import ImageDraw

from holdfast.benchmarks.grading.answer import Grade, one_of
from holdfast.benchmarks.grading.lenient import the_named
from holdfast.benchmarks.grading.text import majority
from holdfast.benchmarks.question import Annotation, Draw, TargetQuestion
from holdfast.config.targets import Spatial
from holdfast.data.grid import CELL, CELLS, LOOKS, PLACES, Look, grid_scene
from holdfast.data.grid import SIZE as SIDE
from holdfast.data.world import Scene, generator

SIZE = (SIDE, SIDE)
COLUMNS = ("question", "answer", "options")
SIDES = {"left": (0, -1), "right": (0, 1), "above": (-1, 0), "below": (1, 0)}
"""As steps of rows and columns."""
VIEWS = ("front", "right", "behind", "left")
"""Clockwise, from where the viewer looks."""
HEADINGS = ((-1, 0), (0, 1), (1, 0), (0, -1))
"""Up, right, down, left: clockwise as well."""
COUNTS = ("0", "1", "2")
LETTERS = "ABCDEFGHIJ"
"""Of a public data set's options."""
WORDS = (*SIDES, "front", "behind", *COUNTS)
KINDS = {"relation": tuple(SIDES), "counting": COUNTS, "perspective": VIEWS}


class Candidate(NamedTuple):
    """A question that a layout can be asked."""

    prompt: str
    reasoning: str


class Layout(NamedTuple):
    """Looks by cell; the viewer's cell and heading."""

    looks: dict[int, Look]
    viewer: int
    heading: int


def ask(target: Spatial, draw: Draw) -> TargetQuestion:
    """Draw layouts until one has a question with the answer that is due."""
    kind = tuple(KINDS)[draw.turn("kind", len(KINDS))]
    answers = KINDS[kind]
    answer = answers[draw.turn(kind, len(answers), draw.number // len(KINDS))]
    rng = generator("spatial", draw.seed, draw.split, draw.number)
    while True:
        layout = _layout(rng, 3 + round(3 * target.difficulty))
        found = list(QUESTIONS[kind](layout, answer))
        if found:
            chosen = found[rng.integers(len(found))]
            scene = grid_scene(rng, layout.looks)
            if kind == "perspective":
                _draw_viewer(scene, layout)
            return TargetQuestion((scene.image,), chosen.prompt, answer, chosen.reasoning, kind, "spatial")


def read(row: Annotation, _target: Spatial, draw: Draw) -> TargetQuestion | None:
    """The row's question with its options by letter, in random order."""
    offered = [answer for answer in row.accepted or (row.answer,) if answer in row.options]
    if not row.question or not 2 <= len(row.options) <= len(LETTERS) or not offered:
        return None
    answer = majority(offered)
    order = generator("options", draw.seed, draw.split, draw.number).permutation(len(row.options))
    shown = [row.options[place] for place in order]
    letters = tuple(LETTERS[shown.index(answer)] for answer in dict.fromkeys(offered))
    options = " ".join(f"{name}. {option}" for name, option in zip(LETTERS, shown, strict=False))
    reasoning = f"I compare where things are in the picture, which speaks for: {answer}."
    question = TargetQuestion(
        row.images, f"{row.question} {options}", LETTERS[shown.index(answer)], reasoning, row.label, "choice"
    )
    return question._replace(accepted=letters) if len(letters) > 1 else question


def grade(completion: str, answer: str) -> Grade:
    """Right if the word or the number is."""
    return one_of(completion, answer, WORDS)


def named(text: str, answer: str) -> str | None:
    """The one answer of the right one's kind that a text names; None for several."""
    return the_named(text, tuple(word for words in KINDS.values() if answer in words for word in words))


def chance(_target: Spatial) -> float:
    """A relation question names two sides, a count has three answers, a perspective four."""
    return (1 / 2 + 1 / 3 + 1 / 4) / 3


def _layout(rng: np.random.Generator, things: int) -> Layout:
    """Things that all look different, and a viewer beside them."""
    viewer, *places = (int(place) for place in rng.permutation(PLACES)[: things + 1])
    chosen = [LOOKS[look] for look in rng.permutation(len(LOOKS))[:things]]
    return Layout(dict(zip(places, chosen, strict=True)), viewer, int(rng.integers(4)))


def _relations(layout: Layout, answer: str) -> Iterator[Candidate]:
    words = "left or right" if answer in ("left", "right") else "above or below"
    for here, there in permutations(layout.looks, 2):
        if _beyond(here, there, answer):
            one, other = _named(layout, here), _named(layout, there)
            yield Candidate(
                f"Is the {one} {words} of the {other}?",
                f"The {one} is in {_cell(here)}, the {other} in {_cell(there)}.",
            )


def _counts(layout: Layout, answer: str) -> Iterator[Candidate]:
    for there in layout.looks:
        for side in SIDES:
            found = [_named(layout, here) for here in layout.looks if _beyond(here, there, side)]
            if len(found) == int(answer):
                reference = _named(layout, there)
                listed = ", ".join(f"the {name}" for name in found) or "nothing"
                yield Candidate(f"How many shapes are {side} of the {reference}?", f"On that side I see {listed}.")


def _views(layout: Layout, answer: str) -> Iterator[Candidate]:
    heading = HEADINGS[(layout.heading + VIEWS.index(answer)) % 4]
    for place in layout.looks:
        if _direction(layout.viewer, place) == heading:
            name = _named(layout, place)
            yield Candidate(
                f"For one who looks along the white arrow, is the {name} in front, behind, left or right?",
                f"The arrow is in {_cell(layout.viewer)}, the {name} in {_cell(place)}.",
            )


QUESTIONS = {"relation": _relations, "counting": _counts, "perspective": _views}


def _beyond(here: int, there: int, side: str) -> bool:
    """Whether a cell lies on this side of another, however far up or down it is."""
    rows, columns = (a - b for a, b in zip(divmod(here, CELLS), divmod(there, CELLS), strict=True))
    down, right = SIDES[side]
    return rows * down + columns * right > 0


def _direction(viewer: int, place: int) -> tuple[int, int] | None:
    """The step from one cell towards another in its row or column; None where it is in neither."""
    rows, columns = (a - b for a, b in zip(divmod(place, CELLS), divmod(viewer, CELLS), strict=True))
    return (int(np.sign(rows)), int(np.sign(columns))) if 0 in (rows, columns) else None


def _named(layout: Layout, place: int) -> str:
    return " ".join(layout.looks[place])


def _cell(place: int) -> str:
    row, column = divmod(place, CELLS)
    return f"row {row + 1}, column {column + 1}"


def _draw_viewer(scene: Scene, layout: Layout) -> None:
    row, column = divmod(layout.viewer, CELLS)
    y, x = row * CELL + CELL // 2, column * CELL + CELL // 2
    down, right = HEADINGS[layout.heading]
    tip = (x + 11 * right, y + 11 * down)
    base = [(x - 9 * right + 6 * side * down, y - 9 * down - 6 * side * right) for side in (-1, 1)]
    ImageDraw.Draw(scene.image).polygon([tip, *base], fill=(255, 255, 255), outline=(30, 30, 30))
