"""Knowledge is read out of what real models write, and never guessed."""

from __future__ import annotations

import time

import numpy as np
import pytest
from PIL import Image

from holdfast.benchmarks.catalog import judge, prior_questions
from holdfast.benchmarks.grading.lenient import boxed, final_answer, the_named, the_option
from holdfast.config.prior import PRIOR_NAMES
from holdfast.data.chat import pictures

OPTIONS = {"A": "a red car", "B": "a blue bus", "C": "vitamin C", "D": "none"}


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("(B)", "B"),
        ("\\boxed{B}", "B"),
        ("\\boxed{\\text{B}}", "B"),
        ("It is a blue bus.", "B"),
        ("So A and C are wrong, and the answer is (B).", "B"),
        ("<think> A? or D? </think> B", "B"),
        ("reasoning that the prompt began </think> B", "B"),
        ("<answer> B </answer>", "B"),
        ("Vitamin C", "C"),
        ("It shows a red car and a blue bus.", None),
        ("A. No wait, B.", None),
        ("<think> so it is B", None),
        ("I cannot tell.", None),
        ("E", None),
        ("<answer> A </answer> <answer> B </answer>", None),
        ("", None),
    ],
)
def test_one_option_is_chosen_by_letter_or_by_text(text: str, letter: str | None) -> None:
    assert the_option(text, OPTIONS) == letter


def test_words_are_whole_numbers_may_be_words_and_the_longer_option_counts() -> None:
    assert the_named("There are three of them.", ("1", "2", "3")) == "3"
    assert the_named("light blue", ("blue", "light blue")) == "light blue"
    assert the_named("light blue, or blue", ("blue", "light blue")) is None
    assert the_named("blueish", ("blue", "red")) is None
    assert the_named("no, yes", ("yes", "no")) is None


def test_the_last_box_is_read_with_its_braces() -> None:
    assert boxed("\\boxed{1} and \\boxed{\\frac{1}{2}}") == "\\frac{1}{2}"
    assert boxed("\\boxed{1") is None
    assert final_answer("<think>\\boxed{1}</think> it is \\boxed{2}") == "2"


@pytest.mark.parametrize(
    "text", ["<think>" * 30_000, "\\boxed{" * 30_000, "answer: " * 30_000, "A " * 60_000, "{" * 99_999]
)
def test_broken_texts_take_no_time(text: str) -> None:
    started = time.perf_counter()
    the_option(text, OPTIONS)
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize("name", PRIOR_NAMES)
def test_bundled_questions_in_plain_words_name_their_answers(name: str) -> None:
    bare, plain = (next(prior_questions(name, 1, 0, plain=plain)) for plain in (False, True))
    assert plain.answer == bare.answer
    [[small], [large]] = map(pictures, (bare, plain))
    assert (small.size, large.size) == ((64, 64), (448, 448))
    again = np.asarray(large.resize((64, 64), Image.Resampling.BOX), float)
    assert np.abs(again - np.asarray(small)).mean() < 8, "the picture is another one"
    assert plain.prompt.startswith(bare.prompt) or bare.prompt in plain.prompt
    assert "Answer with one of these alone" in plain.prompt or "Give its box" in plain.prompt
    assert not bare.details
    right = judge(plain, plain.reference)
    assert (right.correct, right.strict) == (True, True)
    told = judge(plain, f"I see it: the answer is \\boxed{{{plain.answer}}}, surely.")
    # A box counts as one wherever it stands.
    assert (told.correct, told.strict) == (True, name == "grounding")
    assert judge(bare, f"The answer is {bare.answer}, surely.").strict is None
