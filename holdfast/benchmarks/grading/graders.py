"""The graders of a user's own questions, by name, and the two that compare text; docs/graders.md has their rules."""

from __future__ import annotations

import re

from holdfast.benchmarks.grading.answer import UNPARSED, Grade, all_or_nothing, answer_text
from holdfast.benchmarks.grading.box_overlap import grade_box, grade_boxes
from holdfast.benchmarks.grading.numbers import grade_number
from holdfast.benchmarks.grading.options import grade_choice
from holdfast.benchmarks.grading.text import BLANKLESS, LETTER, plain
from holdfast.benchmarks.grading.vqa import grade_vqa
from holdfast.benchmarks.question import BOX


def exact(completion: str, answer: str) -> Grade:
    """The same text, whatever its case, spacing, final punctuation, and typographic marks."""
    text = answer_text(completion)
    if text is None:
        return UNPARSED
    return all_or_nothing(text, plain(text) == plain(answer))


def contains(completion: str, answer: str) -> Grade:
    """The answer stands in the text as whole words, a number as a whole number."""
    text = answer_text(completion)
    if text is None:
        return UNPARSED
    wanted = plain(answer)
    return all_or_nothing(text, bool(wanted) and re.search(_whole(wanted), plain(text)) is not None)


def grade_boxed(completion: str, answer: str) -> Grade:
    r"""What the last `\boxed{}` holds, else the text, as MRCL's authors compare it (arXiv 2607.04364) but for formulas.

    Equal without case, blanks, commas and marks of LaTeX; `B: red` is B. Of an answer in parts (`a; b`), the share that
    stands in its place.
    """
    start = completion.rfind(BOX)
    text = _balanced(completion[start + len(BOX) :]).strip() if start >= 0 else answer_text(completion)
    if not text:
        return UNPARSED
    head = text.partition(":")[0].strip()
    if ":" in text and len(head) == 1 and head.isalpha():
        text = head
    given, wanted = _parts(text), _parts(answer)
    score = sum(said == right for said, right in zip(given, wanted, strict=False)) / len(wanted)
    return Grade(text, score == 1, score)


def _balanced(text: str) -> str:
    """As far as its braces are closed, or to the end."""
    depth = 0
    for place, letter in enumerate(text):
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if depth < 0:
            return text[:place]
    return text


def _parts(text: str) -> list[str]:
    parts = [part for part in text.split(";") if part.strip()] or [text]
    return [re.sub(r"[\\,;{}$ ]", "", part.strip().lower()) for part in parts]


GRADERS = {
    "exact": exact,
    "number": grade_number,
    "choice": grade_choice,
    "box": grade_box,
    "boxed": grade_boxed,
    "contains": contains,
    "detection": grade_boxes,
    "vqa": grade_vqa,
}
WANTED = {
    "number": "one number",
    "choice": "the letter of an option",
    "box": "a box x1 y1 x2 y2 with 0 <= x1 < x2 and 0 <= y1 < y2",
    "detection": "boxes x1 y1 x2 y2 with 0 <= x1 < x2 and 0 <= y1 < y2",
}
"""What an answer of the user's has to be; text without < for all others."""


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
