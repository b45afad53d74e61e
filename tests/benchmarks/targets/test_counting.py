"""Captioned counting: numbers found in captions, near misses, pictures that hold what is counted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.benchmarks.question import Annotation, Draw
from holdfast.benchmarks.targets import counting
from holdfast.benchmarks.targets.counting import grade, stated
from holdfast.config.targets import Counting

TARGET = Counting(benchmark="counting")


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("Three dogs run on the beach.", ("? dogs run on the beach.", 3)),
        ("A photo of 12 birds", ("A photo of ? birds", 12)),
        ("There are two.", ("There are ?.", 2)),
        ("One of the men smiles.", None),
        ("Two cats and three dogs", None),
        ("A train at 10:30", None),
        ("Bus no. 5-a", None),
        ("1,200 people", None),
        ("2.5 apples", None),
        ("50% off", None),
        ("The 2nd runner", None),
        ("someone", None),
        ("", None),
    ],
)
def test_a_caption_with_one_number_is_asked_about_and_no_other(caption: str, expected: object) -> None:
    assert stated(caption) == expected


@given(st.integers(0, 200), st.integers(1, 200))
def test_a_near_miss_earns_more_than_a_far_one(given_number: int, right: int) -> None:
    found = grade(f"<answer> {given_number} </answer>", str(right))
    assert 0 <= found.score <= 1
    assert found.correct == (found.score == 1.0) == (given_number == right)
    step = 1 if given_number < right else -1
    closer = grade(f"<answer> {given_number + step} </answer>", str(right))
    assert closer.score > found.score or found.correct


def test_the_score_by_hand() -> None:
    assert grade("<answer> 3 </answer>", "4").score == 0.75
    assert grade("<answer> Four. </answer>", "4") == ("4", True, 1.0)
    assert grade("<answer> many </answer>", "4").parsed is None
    assert grade("<answer> 3 or 4 </answer>", "4").parsed is None


def test_chance_by_hand() -> None:
    """Of 1 to 3: three right guesses, twice 1/2, twice 1/3, twice 2/3."""
    assert counting.chance(TARGET.model_copy(update={"difficulty": 0.0})) == pytest.approx((3 + 2 * 1.5) / 9)


def test_the_reasoning_names_as_many_cells_as_the_answer_counts() -> None:
    for number in range(60):
        question = counting.ask(TARGET, Draw(1, "test", number))
        assert question.reasoning.partition("cells")[2].count(",") + 1 == int(question.answer)


def test_a_row_without_a_number_is_no_question() -> None:
    assert counting.read(Annotation((), caption="Dogs run."), TARGET, Draw(0, "train", 0)) is None
    question = counting.read(Annotation((), caption="Five dogs run."), TARGET, Draw(0, "train", 0))
    assert question is not None
    assert (question.prompt, question.answer) == ("Which number belongs in the caption: ? dogs run.", "5")
