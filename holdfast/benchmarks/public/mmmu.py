"""MMMU (Yue et al. 2024): college questions in thirty subjects, most with options, some open.

Read as its authors do, with one difference: where no option can be read there is none, and the answer is wrong. The
authors, and lmms-eval, draw a random one instead, which hides a model that has lost the form.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

from holdfast.benchmarks.grading.answer import Verdict
from holdfast.benchmarks.grading.lenient import final_answer, the_option, without_reasoning
from holdfast.benchmarks.grading.text import plain
from holdfast.benchmarks.public.protocol import Doc, Manner, Marked, Picture, Posed, Source, mean

IMAGES = tuple(f"image_{number}" for number in range(1, 8))
SOURCES = {
    "mmmu": Source(
        "lmms-lab-encoder/MMMU",
        "validation",
        ("id", "question", "options", "answer", "question_type"),
        revision="364f2e2eb107b36e07ff4c5a15f5947a759cef47",
        images=IMAGES,
        harness="mmmu_val",
    )
}
CHOICE = "Answer with the option's letter from the given choices directly."
OPEN = "Answer the question using a single word or phrase."
_SHOWN = re.compile(r"<image (\d)>")
_SUBJECT = re.compile(r"[^_]+_(.+?)_\d+")
_CUES = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+"),
    re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)


def pose(row: Doc, _picture: Picture | None, manner: Manner) -> list[Posed]:
    """The question with its options and its suffix; the pictures that it names come first, in their order."""
    listed = options(row)
    suffix = manner.suffix if manner.suffix is not None else CHOICE if listed else OPEN
    lines = "".join(f"\n{letter}. {option}" for letter, option in listed.items())
    answers = _accepted(row["answer"])
    shown = sorted(set(_SHOWN.findall(row["question"] + lines)))
    images = tuple(f"image_{number}" for number in shown) or IMAGES[:1]
    prompt = f"{row['question']}{lines}\n\n{suffix}".rstrip("\n")
    return [Posed(prompt, answers[0], answers[0], row, images=images)]


def options(doc: Doc) -> dict[str, str]:
    """Options by letter, which the data set has as Python's text of a list; none for an open question."""
    if doc["question_type"] != "multiple-choice":
        return {}
    given = doc["options"]
    listed = ast.literal_eval(given) if isinstance(given, str) else given
    return {chr(ord("A") + place): str(option) for place, option in enumerate(listed)}


def grade(completion: str, doc: Doc) -> Verdict:
    """`group` is the subject."""
    subject = _SUBJECT.fullmatch(doc["id"])
    group = subject[1] if subject else ""
    text, listed, answers = without_reasoning(completion), options(doc), _accepted(doc["answer"])
    if listed:
        letter = the_option(completion, listed)
        strict = any(re.fullmatch(rf"{re.escape(right)}\.?", text.strip()) for right in answers)
        authors = float(authors_letter(text, listed) in answers)
        return Verdict(letter, letter in answers, float(letter in answers), strict, authors, group)
    final = final_answer(completion)
    right = is_open_right(final, answers)
    strict = any(plain(text) == plain(answer) for answer in answers)
    return Verdict(final or None, right, float(right), strict, float(is_open_right(text, answers)), group)


def metrics(rows: Sequence[Marked]) -> dict[str, float]:
    """The share of right answers, without luck."""
    return {"authors_accuracy": mean([row.authors or 0.0 for row in rows])}


def _accepted(answer: str | list[str]) -> list[str]:
    """An open question's several answers are Python's text of a list."""
    if isinstance(answer, str) and answer.startswith("["):
        try:
            return [str(part) for part in ast.literal_eval(answer)]
        except (ValueError, SyntaxError):
            return [answer]
    return [answer] if isinstance(answer, str) else [str(part) for part in answer]


def authors_letter(response: str, listed: dict[str, str]) -> str | None:
    """The letter by MMMU's rules: in brackets, before a blank, before a full stop, or by its text; the last of them."""
    for mark in ",.!?;:'":
        response = response.strip(mark)
    text = f" {response} "
    for form, place in (("({})", "({})"), ("{} ", " {} "), ("{}.", " {} ")):
        found = [letter for letter in listed if form.format(letter) in text]
        if found:
            return max(found, key=lambda letter: text.rfind(place.format(letter)))
    small = text.lower()
    named = [letter for letter, option in listed.items() if option.lower() in small] if len(text.split()) > 5 else []
    return max(named, key=lambda letter: small.rfind(listed[letter].lower())) if named else None


def is_open_right(response: str, answers: Sequence[str]) -> bool:
    """Whether what follows cues such as "so" and "is" holds an answer's text, or has its number to two decimals."""
    texts = _key_parts(response)
    said = [value for text in texts for value in (text, *_numbers(text))]
    given = {value for part in said for value in _normal(part)}
    wanted = {value for answer in answers for value in _normal(answer)}
    return any(
        one in wanted if isinstance(one, float) else any(isinstance(right, str) and right in one for right in wanted)
        for one in given
    )


def _key_parts(response: str) -> list[str]:
    """Of every line the shortest end after a cue; in the last one `=` is a cue, too."""
    lines = response.strip().strip(".").lower().split("\n")
    found = []
    for place, line in enumerate(lines):
        cues = (*_CUES, "=") if place == len(lines) - 1 else _CUES
        ends = [line.split(cue)[-1].strip() for cue in cues if cue in line]
        shortest = min((end for end in ends if end), key=len, default="")
        if shortest and shortest not in set(":,.!?;'"):
            found.append(shortest)
    return found or [response.strip().strip(".").lower()]


def _numbers(text: str) -> list[str]:
    return [number for pattern in _NUMBERS for number in pattern.findall(text)]


def _normal(text: str) -> list[str | float]:
    """A number rounded to two decimals; a text in small letters, a single letter with a blank on either side."""
    try:
        return [round(float(text.strip().replace(",", "")), 2)]
    except ValueError:
        small = text.strip().lower()
        return [f" {small}", f"{small} "] if len(small) == 1 else [small]
