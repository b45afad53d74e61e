"""VQA's accuracy: the share of annotators who gave the answer, three of them being enough (Antol et al. 2015)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from holdfast.benchmarks.grading.answer import UNPARSED, Grade, answer_text
from holdfast.benchmarks.grading.text import plain

ANNOTATORS = 10
"""Of a question, whose accuracy leaves each of them out once."""
_NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
_DIGITS = {name: str(number) for number, name in enumerate(_NAMES)} | {"none": "0"}
_ARTICLES = ("a", "an", "the")
_PUNCTUATION = re.compile(r"(?<=\d),(?=\d{3})|'|(?<!\d)\.|\.(?!\d)")
_SEPARATORS = re.compile(r"[;/\[\]\"{}()=+\\_><@?!,]|-(?!\d)|(?<=\w)-")


def grade_vqa(completion: str, answer: str) -> Grade:
    """`soft_score` with a single accepted answer."""
    return soft_score(completion, (answer,))


def soft_score(completion: str, accepted: Sequence[str]) -> Grade:
    """VQA's accuracy as the score: how many annotators gave the answer, three of them being enough; any is correct.

    With m of n annotators of one mind, min(m / 3, 1); of ten, as the official evaluation does, the mean of this over
    the ten sets that leave one annotator out (Antol et al. 2015, arXiv 1505.00468). Of fewer than three, all.
    """
    text = answer_text(completion)
    if text is None:
        return UNPARSED
    given = _normalised(text)
    matches = sum(_normalised(answer) == given for answer in accepted)
    if len(accepted) == ANNOTATORS:
        left_out = matches * min((matches - 1) / 3, 1) + (ANNOTATORS - matches) * min(matches / 3, 1)
        score = left_out / ANNOTATORS
    else:
        score = min(matches / min(3, len(accepted)), 1.0)
    return Grade(text, matches > 0, score)


def _normalised(text: str) -> str:
    """Without articles and punctuation, numbers up to ten in digits, much as the official evaluation compares."""
    words = _SEPARATORS.sub(" ", _PUNCTUATION.sub("", plain(text))).split()
    return " ".join(_DIGITS.get(word, word) for word in words if word not in _ARTICLES) or plain(text)
