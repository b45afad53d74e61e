"""Completions that are written to break a grader or to be paid for nothing: none does, and none takes long."""

from __future__ import annotations

import random

import pytest
from hostile import hostile
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.benchmarks.catalog import GRADERS, grade
from holdfast.benchmarks.grading.answer import answer_text, formatted, thought
from holdfast.benchmarks.targets import jigsaw
from holdfast.config.targets import Jigsaw

RIGHT = {
    "jigsaw": ("2 1 4 3", "left"),
    "color": ("red",),
    "shape": ("circle",),
    "count": ("3",),
    "presence": ("yes",),
    "comparison": ("no",),
    "pieces": ("sky",),
    "grounding": ("2 3 9 12",),
    "digits": ("7",),
    "spatial": ("left", "2"),
    "detection": ("2 3 9 12", "2 3 9 12, 1 1 4 4"),
    "counting": ("3",),
    "arithmetic": ("1205", "-3"),
    "exact": ("a red kite",),
    "number": ("1200.5",),
    "choice": ("B",),
    "box": ("10 20 30 40.5",),
    "boxed": ("B", "3; 4"),
    "contains": ("kite",),
    "vqa": ("kite",),
}


@pytest.mark.parametrize("count", [2_000, pytest.param(10_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", GRADERS)
def test_thousands_of_hostile_completions_neither_crash_a_grader_nor_are_paid_without_the_answer(
    name: str, count: int
) -> None:
    rng = random.Random(f"hostile/{name}")
    for number in range(count):
        answer = RIGHT[name][number % len(RIGHT[name])]
        text = hostile(rng, answer)
        given = grade(name, text, answer)
        assert 0 <= given.score <= 1
        assert given.correct <= (given.score > 0)
        read = answer_text(text)
        if name == "arithmetic" and "<answer>" not in text:
            # Read as GSM8K's authors do: the last number, without tags too.
            assert not given.correct or answer.lstrip("-") in text.replace(",", "")
            continue
        if read is None:
            assert given == (None, False, 0.0)
        words = ("three",) if name == "counting" else ()
        if read is None or not any(word.casefold() in read.casefold() for word in (answer.split()[0], *words)):
            assert not given.correct, text
        assert grade(name, text, answer) == given


def test_every_grader_has_hostile_completions() -> None:
    assert RIGHT.keys() == GRADERS.keys()
    for name, answers in RIGHT.items():
        for answer in answers:
            assert grade(name, f"<answer> {answer} </answer>", answer).correct


@pytest.mark.parametrize("name", GRADERS)
def test_several_answers_are_none(name: str) -> None:
    for answer in RIGHT[name]:
        for other in (answer, "x", ""):
            text = f"<think> a </think> <answer> {answer} </answer> or <answer> {other} </answer>"
            assert grade(name, text, answer) == (None, False, 0.0)


def test_words_and_other_scripts_digits_are_no_numbers() -> None:
    for text in ("two one four three", "² ¹ ⁴ ³", "٢ ١ ٤ ٣", "II I IV III"):
        assert grade("jigsaw", f"<answer> {text} </answer>", "2 1 4 3").score == 0
    assert not grade("count", "<answer> three </answer>", "3").correct
    assert not grade("number", "<answer> ٣ </answer>", "3").correct


def test_digits_that_unicode_calls_compatible_are_digits_in_every_grader() -> None:
    """NFKC (UAX #15) writes full-width and circled digits as the ordinary ones."""
    for name, text, answer in (
        ("jigsaw", "２ １ ４ ３", "2 1 4 3"),
        ("count", "３", "3"),
        ("digits", "⑦", "7"),
        ("grounding", "２ ３ ９ １２", "2 3 9 12"),
        ("spatial", "２", "2"),
        ("counting", "３", "3"),
        ("detection", "［２，３，９，１２］", "2 3 9 12"),
        ("number", "－３", "-3"),
        ("choice", "（Ｂ）", "B"),
        ("exact", "Ｋｉｔｅ", "kite"),
        ("contains", "ａ ｋｉｔｅ", "kite"),
        ("vqa", "ｋｉｔｅ", "kite"),
    ):
        assert grade(name, f"<answer> {text} </answer>", answer).correct, name


GIGANTIC = [
    "<answer>" * 100_000,
    "<think>" * 100_000,
    "<answer>" * 50_000 + "</answer>" * 50_000,
    "<answer> 2 " + " " * 1_000_000 + "</answer>",
    "<answer>" + "2 1 4 3 " * 100_000 + "</answer>",
    "<answer>" + "9" * 1_000_000 + "</answer>",
    "<answer>" + "1," * 500_000 + "</answer>",
    "<answer>" + "1.1e" * 250_000 + "</answer>",
    "<answer>" + "kit" * 300_000 + "</answer>",
    "<think>" + "a " * 500_000 + "</think> <answer> 2 1 4 3 </answer>",
    "<" * 1_000_000,
    " " * 1_000_000,
    "." * 1_000_000,
    "B" + " " * 1_000_000 + "x",
    "é" + "\u0301\u0323" * 100_000,
    "<answer>" + "5 " * 300_000 + "</answer>",
    "<answer>" + "B) " * 300_000 + "</answer>",
    "<answer>" + "[" * 300_000 + "</answer>",
    "<answer>" + '{"bbox_2d": [1, 2, 3, 4], ' * 20_000 + "</answer>",
    "<answer> -1e999 -1e999 1e999 1e999 </answer>",
    "<answer> -1e308 -1e308 1e308 1e308 </answer>",
    "<answer> 0 0 1e-999 1e999 </answer>",
]


@pytest.mark.parametrize("name", GRADERS)
def test_a_megabyte_is_graded(name: str) -> None:
    """At once; anything quadratic would not come back."""
    for text in GIGANTIC:
        for answer in RIGHT[name]:
            assert 0 <= grade(name, text, answer).score <= 1


def test_a_megabyte_is_no_trouble_for_tags_or_neighbours() -> None:
    question = jigsaw.prompt(Jigsaw())
    for text in GIGANTIC:
        formatted(text, thinking=True)
        formatted(text, thinking=False)
        thought(text)
        assert jigsaw.adjacency(text, "2 1 4 3", question) in (0.0, 1.0)


@given(st.text(max_size=60), st.sampled_from(sorted(GRADERS)), st.booleans())
@settings(max_examples=300)
def test_any_text_is_graded(text: str, name: str, tagged: bool) -> None:
    given_text = f"<answer>{text}</answer>" if tagged else text
    graded = grade(name, given_text, RIGHT[name][0])
    assert 0 <= graded.score <= 1
    assert isinstance(formatted(given_text, tagged), bool)
