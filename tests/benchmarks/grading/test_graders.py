"""Texts as equal as their readers find them, and questions with several accepted answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.benchmarks.catalog import grade
from holdfast.benchmarks.grading.text import majority, normal, plain


@pytest.mark.parametrize(
    ("text", "answer", "verdict"),
    [
        ("It’s “red”", 'it\'s "red"', True),
        ("caf\u0065\u0301", "café", True),
        ("ＲＥＤ", "red", True),
        ("well‑known", "well-known", True),
        ("1990–2000", "1990-2000", True),
        ("and so on…", "and so on", True),
        ("红色。", "红色", True),
        ("红色！", "红色", True),
        ("أحمر؟", "أحمر", True),
        ("लाल।", "लाल", True),
        ("¿Sí?", "sí", True),
        ("STRASSE", "straße", True),
        ("red\u200b", "red", True),
        ("ﬁsh", "fish", True),
        ("a\u00a0 kite !", "a kite", True),
        ("−5", "-5", True),
        ("10²", "102", False),
        ("5½", "51/2", False),
        ("-5", "5", False),
        ("C+", "C", False),
        ("50%", "50", False),
        ("!", "?", False),
        ("resume", "résumé", False),
    ],
)
def test_exact_sees_no_difference_in_typography_alone(text: str, answer: str, verdict: bool) -> None:
    assert grade("exact", f"<answer> {text} </answer>", answer).correct is verdict
    assert grade("exact", f"<answer> {answer} </answer>", text).correct is verdict


@pytest.mark.parametrize(
    ("text", "answer", "verdict"),
    [
        ("这辆车是红色的", "红色", True),
        ("รถคันนี้สีแดงครับ", "สีแดง", True),
        ("それは赤い車です。", "赤い", True),
        ("빨간색입니다", "빨간색", True),
        ("这是iPhone手机", "iphone", True),
        ("I have 3 apples.", "3", True),
        ("There are 3.", "3", True),
        ("It costs $3", "3", True),
        ("有3个", "3", True),
        ("3.14", "3", False),
        ("1,200", "200", False),
        ("1,200", "1", False),
        ("1 200", "200", False),
        ("1 200", "1", False),
        ("13", "3", False),
        ("-3", "3", False),
        ("−3", "3", False),
        ("3,14", "14", False),
        ("3/4", "3", False),
        ("COVID-19", "19", False),
        ("A4", "4", False),
        ("13.14", "3.14", False),
        ("about 3.14.", "3.14", True),
        ("1, 200", "200", True),
        ("the reddish car", "red", False),
        ("It’s a don’t", "don't", True),
        ("...", "red", False),
        ("anything", "...", False),
    ],
)
def test_contains_ends_a_word_or_a_number_where_its_script_does(text: str, answer: str, verdict: bool) -> None:
    assert grade("contains", f"<answer> {text} </answer>", answer).correct is verdict


@pytest.mark.parametrize(("matches", "score"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_soft_accuracy_of_ten_annotators_leaves_each_out_once(matches: int, score: float) -> None:
    """Of one match: the set without it gives 0, the nine others 1/3 each."""
    accepted = ["yes"] * matches + [f"other {number}" for number in range(10 - matches)]
    found = grade("vqa", "<answer> Yes. </answer>", accepted[0], accepted)
    assert found.score == pytest.approx(score)
    assert found.correct is (matches > 0)


@pytest.mark.parametrize(
    ("accepted", "score"),
    [(["yes"], 1.0), (["yes", "no"], 0.5), (["yes", "no", "no"], 1 / 3), (["yes"] * 2 + ["no"] * 3, 2 / 3)],
)
def test_of_another_number_of_annotators_three_are_enough_or_all(accepted: list[str], score: float) -> None:
    assert grade("vqa", "<answer> yes </answer>", "yes", accepted).score == pytest.approx(score)


def test_vqa_compares_without_articles_and_with_numbers_in_digits() -> None:
    for text, answer in (("The two dogs", "2 dogs"), ("none", "0"), ("Dont know!", "don't know"), ("1,000", "1000")):
        assert grade("vqa", f"<answer> {text} </answer>", answer).correct
    assert not grade("vqa", "<answer> -5 </answer>", "5").correct
    assert not grade("vqa", "<answer> the </answer>", "a").correct


@pytest.mark.parametrize(
    ("grader", "accepted", "text"),
    [
        ("exact", ("yes", "no"), "no"),
        ("number", ("3", "4"), "4 apples"),
        ("choice", ("A", "C"), "(C)"),
        ("contains", ("red", "crimson"), "a crimson car"),
        ("box", ("0 0 4 4", "10 20 30 40"), "[10, 20, 30, 40]"),
    ],
)
def test_any_accepted_answer_is_right(grader: str, accepted: tuple[str, ...], text: str) -> None:
    found = grade(grader, f"<answer> {text} </answer>", accepted[0], accepted)
    assert (found.correct, found.score) == (True, 1.0)
    assert not grade(grader, f"<answer> {text} </answer>", accepted[0]).correct


def test_the_best_overlap_with_an_accepted_box_counts() -> None:
    accepted = ("0 0 4 4", "0 0 4 3")
    assert grade("box", "<answer> 0 0 4 2 </answer>", accepted[0], accepted).score == pytest.approx(2 / 3)


def test_most_annotators_are_learned_from_and_else_the_first() -> None:
    assert majority(["no", "yes", "Yes."]) == "yes"
    assert majority(["b", "a"]) == "b"


@given(st.text())
def test_normal_text_is_its_own_normal_form(text: str) -> None:
    once = normal(text)
    assert plain(once) == plain(text) or not text.isascii()
    assert normal(once).replace("^", "") == once.replace("^", "") or not once.isascii()
