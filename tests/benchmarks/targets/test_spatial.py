"""Spatial questions: what they say of rows, columns and headings is true."""

from __future__ import annotations

import re

import pytest

from holdfast.benchmarks import catalog
from holdfast.benchmarks.question import Annotation, Draw
from holdfast.benchmarks.targets import spatial
from holdfast.config.targets import Spatial

TARGET = Spatial(benchmark="spatial", difficulty=1.0)


def asked(kind: str, count: int = 150):  # type: ignore[no-untyped-def]
    drawn = (spatial.ask(TARGET, Draw(0, "train", number)) for number in range(count))
    return [posed for posed in drawn if posed.group == kind]


def cells(reasoning: str) -> list[tuple[int, int]]:
    return [(int(row), int(column)) for row, column in re.findall(r"row (\d), column (\d)", reasoning)]


def test_a_relation_follows_from_rows_and_columns() -> None:
    for posed in asked("relation"):
        (row, column), (other_row, other_column) = cells(posed.reasoning)
        holds = {
            "left": column < other_column,
            "right": column > other_column,
            "above": row < other_row,
            "below": row > other_row,
        }
        assert holds[posed.answer]
        assert posed.answer in posed.prompt


def test_a_count_is_the_number_of_things_that_the_teacher_lists() -> None:
    for posed in asked("counting"):
        assert len(re.findall(r"the \w+ \w+", posed.reasoning)) == int(posed.answer)


@pytest.mark.parametrize(
    ("heading", "place", "view"),
    [(0, 1, "front"), (0, 7, "behind"), (0, 5, "right"), (1, 1, "left"), (2, 5, "left"), (3, 3, "front")],
)
def test_views_turn_with_the_heading(heading: int, place: int, view: str) -> None:
    """The viewer is in the middle (cell 4); headings are up, right, down, left."""
    layout = spatial.Layout({place: ("red", "circle")}, 4, heading)
    found = {view: len(list(spatial.QUESTIONS["perspective"](layout, view))) for view in spatial.VIEWS}
    assert found == {other: int(other == view) for other in spatial.VIEWS}


def test_what_lies_across_is_not_asked_for() -> None:
    layout = spatial.Layout({0: ("red", "circle")}, 4, 0)
    assert not [q for view in spatial.VIEWS for q in spatial.QUESTIONS["perspective"](layout, view)]


def test_options_are_lettered_in_random_order_and_the_letter_is_graded() -> None:
    row = Annotation((), label="obj_movement", question="Which way?", answer="left", options=("left", "right"))
    letters = []
    for number in range(60):
        posed = spatial.read(row, TARGET, Draw(0, "train", number))
        assert posed is not None
        assert f"{posed.answer}. left" in posed.prompt
        assert catalog.grade(posed.grader, f"<answer> {posed.answer}. left </answer>", posed.answer).correct
        letters.append(posed.answer)
    assert 15 < letters.count("A") < 45
    assert posed.group == "obj_movement"


def test_a_row_whose_answer_is_no_option_is_left_out() -> None:
    row = Annotation((), question="Which way?", answer="up", options=("left", "right"))
    assert spatial.read(row, TARGET, Draw(0, "train", 0)) is None
