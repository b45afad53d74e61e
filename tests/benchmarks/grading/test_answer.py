"""Reading answers: exactly one, in its tags or alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.benchmarks.grading.answer import answer_text, few_numbers, formatted, one_of
from holdfast.benchmarks.grading.box_overlap import overlap


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("<think> a </think> <answer> red </answer>", "red"),
        ("<answer>red</answer>", "red"),
        ("red", "red"),
        ("<answer> red </answer> <answer> blue </answer>", None),
        ("<answer> <answer> red </answer> </answer>", None),
        ("<answer> red", None),
        ("<think> red", None),
        ("<answer> </answer>", None),
        ("", None),
    ],
)
def test_one_answer_is_read_and_several_are_none(completion, answer):
    assert answer_text(completion) == answer


@pytest.mark.parametrize(
    ("completion", "with_thinking", "without"),
    [
        ("<think> a </think> <answer> 1 </answer>", True, False),
        ("<think> a\nb </think>\n<answer> 1 </answer>\n", True, False),
        ("<answer> 1 </answer>", False, True),
        ("<think> a </think> <answer> 1 </answer> and more", False, False),
        ("<think> <think> a </think> <answer> 1 </answer>", False, False),
        ("<think> a </think> <answer> 1 </answer> <answer> 2 </answer>", False, False),
    ],
)
def test_the_form_is_reasoning_and_one_answer_and_nothing_else(completion, with_thinking, without):
    assert formatted(completion, thinking=True) is with_thinking
    assert formatted(completion, thinking=False) is without


@given(st.lists(st.integers(0, 99), min_size=1, max_size=9), st.sampled_from([" ", ", ", ";", "\n"]))
def test_numbers_are_read_whatever_separates_them(values, separator):
    text = separator.join(map(str, values))
    assert few_numbers(text, len(values)) == values
    assert few_numbers(f"[{text}]", len(values)) == values
    assert few_numbers(text, len(values) + 1) is None


def test_words_for_numbers_and_signs_are_no_numbers():
    assert few_numbers("one two", 2) is None
    assert few_numbers("-1 2", 2) is None
    assert few_numbers("1.5 2", 2) is None


def test_only_listed_words_are_answers():
    assert one_of("<answer> Red. </answer>", "red", ("red", "blue")) == ("red", True, 1.0)
    assert one_of("<answer> blue </answer>", "red", ("red", "blue")) == ("blue", False, 0.0)
    assert one_of("<answer> red blue </answer>", "red", ("red", "blue")).parsed is None


def test_overlap_of_two_boxes_by_hand():
    assert overlap([0, 0, 2, 2], [1, 1, 3, 3]) == pytest.approx(1 / 7)
    assert overlap([0, 0, 2, 2], [2, 2, 3, 3]) == 0.0
