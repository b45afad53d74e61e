"""Knowledge is read out of what real models write, and never guessed."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from holdfast.benchmarks.catalog import grade, grade_leniently, judge, prior_questions
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


ANIMALS = {"A": "dog", "B": "cat", "C": "horse", "D": "bird"}
STATEMENTS = (
    "The answer is {}.",
    "Answer: {}",
    "The correct option is ({}).",
    "**Answer:** {}",
    "{}",
    "{} is correct.",
)
EXPLANATIONS = (
    "Option {} is wrong because it shows a {}.",
    "Explanation: The option {} is {}.",
    "{} is incorrect, for no {} is seen.",
    "It is not {}, the {}.",
    "Choice {} shows a {}.",
)


@settings(deadline=None)
@given(
    st.permutations(tuple(ANIMALS)), st.sampled_from(STATEMENTS), st.sampled_from(EXPLANATIONS), st.sampled_from(" \n")
)
def test_what_is_said_of_another_option_does_not_take_the_answer_back(
    letters: list[str], statement: str, explanation: str, between: str
) -> None:
    right, other, *_ = letters
    if statement[-1] == "}":
        between = "\n\n"
    text = f"{statement.format(right)}{between}{explanation.format(other, ANIMALS[other])}"
    assert the_option(text, ANIMALS) == right


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The answer is B. Option A is wrong because it shows a dog.", "B"),
        ("Answer: B. cat\n\nExplanation: The option A is dog.", "B"),
        ("The answer is B because A shows a dog.", "B"),
        ("The answer is A, not option B.", "A"),
        ("The answer is a cat. Option A shows a dog.", "B"),
        ("The answer is B.\n\nA. dog - no\nC. horse - no", "B"),
        ("The answer is A. Wait, the answer is B.", "B"),
        ("Options A, C and D are wrong. So it is B.", "B"),
        ("Let's see. Option A: dog. Option B: cat. It is a cat.", "B"),
        ("B\n\nIt has whiskers, while A barks.", "B"),
        ("### Final Answer\n\nB", "B"),
        ("The answer to the question is B, since option C has no legs", "B"),
        ("The answer is B. Or maybe A.", None),
        ("The answer is B. It could be A.", None),
        ("The answer is a cat. Or a dog.", None),
        ("The answer is B. Cat or A. Dog", None),
        ("B. Or option C.", None),
        ("B\nor A", None),
        ("A. dog\nB. cat\nC. horse\nD. bird", None),
        ("The answer cannot be A.", None),
        ("The answer is not A. It shows a dog.", None),
        ("It is neither A nor C.", None),
        ("There is no dog here", None),
        ("It's not a dog.", None),
        ("I don't see any dog.", None),
    ],
)
def test_the_stated_answer_counts_and_a_denied_one_does_not(text: str, letter: str | None) -> None:
    assert the_option(text, ANIMALS) == letter


def test_full_stops_within_an_option_do_not_end_it() -> None:
    options = {"A": "I is true", "B": "I is true. II is false"}
    assert the_option("The answer is I is true. II is false.", options) == "B"


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
    "text",
    [
        *("<think>" * 30_000, "\\boxed{" * 30_000, "answer: " * 30_000, "A " * 60_000, "{" * 99_999),
        *("A, " * 9_000, "B" + "." * 99_999, ", " * 49_999, "not A or " * 6_000, "B\n" * 49_999),
        *("answer is B. Or " * 6_000, "answer: " + "\\text{" * 16_000, "A is wrong " * 4_000, "answer to " * 4_000),
    ],
)
def test_broken_texts_take_no_time(text: str) -> None:
    started = time.process_time()
    the_option(text, OPTIONS)
    assert time.process_time() - started < 2


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


ORDER = "4 2 3 1"


@pytest.mark.parametrize(
    "text",
    [
        "<think> x </think> 4 2 3 1",
        "\\boxed{4 2 3 1}",
        "The order is 4, 2, 3, 1.",
        "**4 2 3 1**",
        "I see 4 pieces, and the answer is 4, 2, 3 and 1.",
        "First I thought 1 2 3 4. Final answer: 4 2 3 1",
        "**Answer:**\n4 2\n3 1",
        "| 4 | 2 |\n| 3 | 1 |",
        "So 4 → 2 → 3 → 1 it is.",
    ],
)
def test_an_order_is_read_in_forms_that_its_strict_score_does_not_pay(text: str) -> None:
    assert grade("jigsaw", text, ORDER).parsed is None
    assert tuple(grade_leniently("jigsaw", text, ORDER)) == (ORDER, True, 1.0)


@pytest.mark.parametrize(
    "text",
    [
        "1 2 3 4 or 4 2 3 1",
        "The answer is 1 2 3 4. Wait, 4 2 3 1.",
        "It is not 4 2 3 1.",
        "<think> 4 2 3 1",
        "<answer> 4 2 3 1 </answer> <answer> 4 2 3 1 </answer>",
        "4 2 3 1 5",
        "4.2 3.1",
        "Piece 4 goes first, then 2.",
        "Pieces 1 to 4 of this 2x2 image.",
        "",
    ],
)
def test_no_order_is_made_of_several_or_of_what_is_none(text: str) -> None:
    assert grade_leniently("jigsaw", text, ORDER).parsed is None


def test_a_wrong_order_in_a_sentence_has_the_share_of_its_right_places() -> None:
    assert tuple(grade_leniently("jigsaw", "The order is 4, 1, 3, 2.", ORDER)) == ("4 1 3 2", False, 0.5)


@pytest.mark.parametrize(
    ("grader", "answer", "text", "parsed", "score"),
    [
        ("jigsaw", "left", "The second lies **left** of the first.", "left", 1.0),
        ("jigsaw", "left", "It is left or right.", None, 0.0),
        ("spatial", "behind", "<think> left </think> It is behind the viewer.", "behind", 1.0),
        ("spatial", "2", "There are two shapes on the left.", "2", 1.0),
        ("counting", "4", "I count three squares.", "3", 0.75),
        ("counting", "4", "There are 4 squares and 2 circles.", None, 0.0),
        ("exact", "Falco", "<think> x </think>\n**Falco**.", "Falco", 1.0),
        ("exact", "Falco", "I looked closely. The answer is Falco.", "Falco", 1.0),
        ("exact", "Falco", "Falco or Gull", "Falco or Gull", 0.0),
        ("number", "0.5", "<think> 3 </think> `.5`", "0.5", 1.0),
        ("choice", "B", "<think> A </think> The answer is B.", "B", 1.0),
        ("detection", "10 20 30 40", "<think> x </think> [10, 20, 30, 40]", "10 20 30 40", 1.0),
        ("arithmetic", "18", "<think> 3 </think> 9 * 2 = 18", "18", 1.0),
    ],
)
def test_every_targets_answer_is_read_leniently(
    grader: str, answer: str, text: str, parsed: str | None, score: float
) -> None:
    found = grade_leniently(grader, text, answer)
    assert (found.parsed, found.score) == (parsed, score)


@given(
    st.lists(st.sampled_from([*"1234 ,.-", "<think>", "</think>", "<answer>", "</answer>", "The answer is ", "left"])),
    st.sampled_from([("jigsaw", ORDER), ("jigsaw", "left"), ("counting", "3"), ("exact", "left"), ("number", "4")]),
)
def test_a_lenient_score_is_never_below_the_strict_one(parts: list[str], asked: tuple[str, str]) -> None:
    text, (grader, answer) = "".join(parts), asked
    assert grade_leniently(grader, text, answer).score >= grade(grader, text, answer).score


@pytest.mark.parametrize(
    "text", ["1 2 " * 20_000, "1 2. " * 20_000, "4 2 3 1x " * 10_000, "1-" * 50_000, "one " * 25_000]
)
def test_long_texts_are_read_leniently_in_time(text: str) -> None:
    started = time.process_time()
    for grader in ("jigsaw", "counting"):
        assert not grade_leniently(grader, text, "4 2 3 1" if grader == "jigsaw" else "3").correct
    assert time.process_time() - started < 4
