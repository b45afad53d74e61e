"""The graders of a user's own questions. docs/graders.md says what each of them reads, and what is no answer."""

from __future__ import annotations

import re
from collections.abc import Sequence

from holdfast.benchmarks.grading import boxes, detection
from holdfast.benchmarks.grading.answer import UNPARSED, Grade, answer_text, overlap
from holdfast.benchmarks.grading.numbers import same, the_number
from holdfast.benchmarks.grading.options import the_letter
from holdfast.benchmarks.grading.text import BLANKLESS, LETTER, normal, plain

ANNOTATORS = 10
"""Of a VQA question, whose accuracy leaves each of them out once."""
_NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
_DIGITS = {name: str(number) for number, name in enumerate(_NAMES)} | {"none": "0"}
_ARTICLES = ("a", "an", "the")
_PUNCTUATION = re.compile(r"(?<=\d),(?=\d{3})|'|(?<!\d)\.|\.(?!\d)")
_SEPARATORS = re.compile(r"[;/\[\]\"{}()=+\\_><@?!,]|-(?!\d)|(?<=\w)-")


def exact(completion: str, answer: str) -> Grade:
    """The same text, whatever its case, spacing, final punctuation, and typographic marks."""
    text = answer_text(completion)
    if text is None:
        return UNPARSED
    return _verdict(text, plain(text) == plain(answer))


def number(completion: str, answer: str) -> Grade:
    """The one number in the answer, equal within 1e-6 of its size."""
    text = answer_text(completion)
    found = the_number(text) if text else None
    if found is None:
        return UNPARSED
    right = the_number(normal(answer).strip())
    return _verdict(f"{found:.12g}", right is not None and same(found, right))


def choice(completion: str, answer: str) -> Grade:
    """The letter of the one option that is chosen: B, (B), **B**, B. red, The answer is B."""
    letter = the_letter(answer_text(completion) or "")
    return UNPARSED if letter is None else _verdict(letter, letter == the_letter(normal(answer).strip()))


def box(completion: str, answer: str) -> Grade:
    """Corners x1, y1, x2, y2 with IoU ≥ 0.5; the score is the IoU."""
    given = set(boxes.answered(completion) or ())
    if len(given) != 1:
        return UNPARSED
    side = given.pop()
    right = boxes.boxes(normal(answer).strip()) or [(0.0, 0.0, 0.0, 0.0)]
    iou = overlap(side, right[0])
    return Grade(boxes.written([side]), iou >= detection.RIGHT, iou)


def contains(completion: str, answer: str) -> Grade:
    """The answer stands in the text as whole words, a number as a whole number."""
    text = answer_text(completion)
    if text is None:
        return UNPARSED
    wanted = plain(answer)
    return _verdict(text, bool(wanted) and re.search(_whole(wanted), plain(text)) is not None)


def vqa(completion: str, answer: str) -> Grade:
    """`soft` with a single accepted answer."""
    return soft(completion, (answer,))


def soft(completion: str, accepted: Sequence[str]) -> Grade:
    """VQA's accuracy as the score: how many annotators gave the answer, three of them being enough; any is correct.

    With m of n annotators of one mind, min(m / 3, 1); of ten, as the official evaluation does, the mean of this over
    the ten sets that leave one annotator out (Antol et al. 2015, arXiv 1505.00468). Of fewer than three, all.
    """
    text = answer_text(completion)
    if text is None:
        return UNPARSED
    given = _as_vqa(text)
    matches = sum(_as_vqa(answer) == given for answer in accepted)
    if len(accepted) == ANNOTATORS:
        left_out = matches * min((matches - 1) / 3, 1) + (ANNOTATORS - matches) * min(matches / 3, 1)
        score = left_out / ANNOTATORS
    else:
        score = min(matches / min(3, len(accepted)), 1.0)
    return Grade(text, matches > 0, score)


GRADERS = {
    "exact": exact,
    "number": number,
    "choice": choice,
    "box": box,
    "contains": contains,
    "detection": detection.grade,
    "vqa": vqa,
}
WANTED = {
    "number": "one number",
    "choice": "the letter of an option",
    "box": "a box x1 y1 x2 y2 with 0 <= x1 < x2 and 0 <= y1 < y2",
    "detection": "boxes x1 y1 x2 y2 with 0 <= x1 < x2 and 0 <= y1 < y2",
}
"""What an answer of the user's has to be; text without < for all others."""


def _verdict(parsed: str, correct: bool) -> Grade:
    return Grade(parsed, correct, float(correct))


def _whole(wanted: str) -> str:
    """A pattern for a plain text that goes on neither before nor after it as the same word or number."""
    left = "" if re.match(f"[{BLANKLESS}]", wanted[0]) else f"(?<!{LETTER})"
    right = "" if re.match(f"[{BLANKLESS}]", wanted[-1]) else f"(?!{LETTER})"
    if wanted[0].isdigit():
        left += r"(?<!\d[.,:/'^])(?<!-)(?<!-[$€£¥])(?<!minus )(?<!negative )"
        left += r"(?<!\d )" if re.match(r"\d{3}(?!\d)", wanted) else ""
    if wanted[-1].isdigit():
        right += r"(?![.,:/'^]\d)"
        right += r"(?! \d{3}(?!\d))" if re.search(r"(?<!\d)\d{1,3}\Z", wanted) else ""
    return left + re.escape(wanted) + right


def _as_vqa(text: str) -> str:
    """Without articles and punctuation, numbers up to ten in digits, much as the official evaluation compares."""
    words = _SEPARATORS.sub(" ", _PUNCTUATION.sub("", plain(text))).split()
    return " ".join(_DIGITS.get(word, word) for word in words if word not in _ARTICLES) or plain(text)
