"""MMStar (Chen et al. 2024): four options whose picture is needed; the mean over eighteen kinds of questions."""

from __future__ import annotations

import re
from collections.abc import Sequence

from holdfast.benchmarks.grading.answer import Verdict
from holdfast.benchmarks.grading.lenient import the_option, without_reasoning
from holdfast.benchmarks.public.protocol import Doc, Manner, Marked, Picture, Posed, Source, mean

SOURCES = {
    "mmstar": Source(
        "Lin-Chen/MMStar",
        "val",
        ("index", "question", "answer", "category", "l2_category"),
        revision="bc98d668301da7b14f648724866e57302778ab27",
        images=("image",),
        harness="mmstar",
    )
}
SUFFIX = "\nAnswer with the option's letter from the given choices directly"
LETTERS = "ABCD"
_OPTIONS = re.compile(r"(?:^|[\s,(])([A-D])[:.)]\s*(.*?)(?=[\s,;]*(?:[\s(])[B-D][:.)]\s|\Z)", re.DOTALL)
PHRASES = (
    *("the answer is", "answer is", "the correct answer is", "correct answer is", "the best answer is"),
    *("best answer is", "the correct option is", "correct option is", "the best option is", "best option is"),
    *("the choice is", "choice is", "the correct choice is", "correct choice is", "my answer is", "my choice is"),
    *("i choose", "i select", "i pick", "옵션", "정답은", "답은", "답:", "答案是", "答案为", "选", "答えは"),
)
"""After which lmms-eval looks for a letter."""
MARKS = (("({})", 6), ("{}.", 5), ("{}:", 4), ("{})", 3), ("{} ", 2))
"""How lmms-eval knows a letter as an option's, and how sure it is."""


def pose(row: Doc, _picture: Picture | None, manner: Manner) -> list[Posed]:
    """The question, which has its options, with the suffix."""
    suffix = SUFFIX if manner.suffix is None else manner.suffix
    answer = row["answer"].strip().upper()
    return [Posed(f"{row['question'].strip()}{suffix}", answer, answer, row)]


def grade(completion: str, doc: Doc) -> Verdict:
    """`group` is the kind of question."""
    right = doc["answer"].strip().upper()
    letter = the_option(completion, options(doc["question"]))
    text = without_reasoning(completion)
    strict = re.fullmatch(rf"{right}\.?", text.strip()) is not None
    authors = float(authors_letter(text) == right)
    return Verdict(letter, letter == right, float(letter == right), strict, authors, doc["l2_category"])


def options(question: str) -> dict[str, str]:
    """The options that stand in a question, by letter; a letter without a text where they are not found."""
    listed = question[max(question.rfind("Options:"), question.rfind("Choices:"), 0) :]
    found = {letter: text.strip(" ,.;\n") for letter, text in _OPTIONS.findall(listed)}
    return {letter: found.get(letter, "") for letter in LETTERS}


def metrics(rows: Sequence[Marked]) -> dict[str, float]:
    """The mean over kinds of questions, as lmms-eval's `average`."""
    kinds: dict[str, list[Marked]] = {}
    for row in rows:
        kinds.setdefault(row.group or "", []).append(row)
    return {
        "authors_average": mean([mean([row.authors or 0.0 for row in group]) for group in kinds.values()]),
        "average": mean([mean([float(row.correct) for row in group]) for group in kinds.values()]),
    }


def authors_letter(response: str) -> str | None:
    """The letter that lmms-eval reads: of all marked ones the surest, and of these the last."""
    text = response.strip()
    for mark in ",.!?;:'\"":
        text = text.strip(mark)
    text, bare, small = f" {text} ", text.strip(), f" {text} ".lower()
    found = [
        (sure, text.rfind(mark.format(letter)), letter)
        for mark, sure in MARKS
        for letter in LETTERS
        if mark.format(letter) in text
    ]
    for phrase in PHRASES:
        after = small.find(phrase) + len(phrase)
        if phrase in small:
            found += [(7, text.find(letter, after), letter) for letter in LETTERS if letter in text[after:]]
    for letter in LETTERS:
        if bare.startswith(letter) and not bare[1:2].isalpha():
            found.append((10, 0, letter))
        if bare.endswith(letter) and not bare[-2:-1].isalpha():
            found.append((9, len(text) - 1, letter))
    found = found or [(0, text.rfind(letter), letter) for letter in LETTERS if letter in text]
    return max(found, key=lambda one: one[:2])[2] if found else None
