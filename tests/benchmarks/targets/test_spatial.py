"""Spatial questions: what they say of rows, columns and headings is true."""

from __future__ import annotations

import re

import pytest

from holdfast.benchmarks import catalog
from holdfast.benchmarks.question import Annotation, Draw
from holdfast.benchmarks.targets import spatial
from holdfast.config.targets import Spatial

TARGET = Spatial(benchmark="spatial", difficulty=1.0)


def questions_of(kind: str, count: int = 150):  # type: ignore[no-untyped-def]
    drawn = (spatial.ask(TARGET, Draw(0, "train", number)) for number in range(count))
    return [question for question in drawn if question.group == kind]


def cells(reasoning: str) -> list[tuple[int, int]]:
    return [(int(row), int(column)) for row, column in re.findall(r"row (\d), column (\d)", reasoning)]


def test_a_relation_follows_from_rows_and_columns() -> None:
    for question in questions_of("relation"):
        (row, column), (other_row, other_column) = cells(question.reasoning)
        holds = {
            "left": column < other_column,
            "right": column > other_column,
            "above": row < other_row,
            "below": row > other_row,
        }
        assert holds[question.answer]
        assert question.answer in question.prompt


def test_a_count_is_the_number_of_things_that_the_teacher_lists() -> None:
    for question in questions_of("counting"):
        assert len(re.findall(r"the \w+ \w+", question.reasoning)) == int(question.answer)


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
        question = spatial.read(row, TARGET, Draw(0, "train", number))
        assert question is not None
        assert f"{question.answer}. left" in question.prompt
        assert catalog.grade(question.grader, f"<answer> {question.answer}. left </answer>", question.answer).correct
        letters.append(question.answer)
    assert 15 < letters.count("A") < 45
    assert question.group == "obj_movement"


def test_a_row_whose_answer_is_no_option_is_left_out() -> None:
    row = Annotation((), question="Which way?", answer="up", options=("left", "right"))
    assert spatial.read(row, TARGET, Draw(0, "train", 0)) is None
