"""Reading an answer out of a completion; rewards and scores read it here, so they cannot disagree."""

from __future__ import annotations

import re
from typing import NamedTuple

from holdfast.benchmarks.grading.text import normal, plain
from holdfast.data.shards import Question

_TAG = re.compile(r"</?(?:think|answer)>")
_THOUGHT = ["<think>", "</think>"]
_ANSWERED = ["<answer>", "</answer>"]


class Grade(NamedTuple):
    """What a grader says of a completion: the answer it read, if any, and how right it is (score from 0 to 1)."""

    parsed: str | None
    correct: bool
    score: float


class Verdict(NamedTuple):
    """A grade, and where a question asks for a form of its own, what a stricter reader and its authors say."""

    parsed: str | None
    correct: bool
    """Read leniently: the knowledge is there."""
    score: float
    strict: bool | None = None
    """Right, and in the form that was asked for."""
    authors: float | None = None
    """The score by the rules of the benchmark's authors."""
    group: str | None = None
    """What the authors' metric is summed up by."""


UNPARSED = Grade(None, False, 0.0)


def all_or_nothing(parsed: str, correct: bool) -> Grade:
    """The grade of an answer without partial credit."""
    return Grade(parsed, correct, float(correct))


def answer_text(completion: str) -> str | None:
    """The text in the one answer tag, or the whole completion if it has no tags; several answers are none.

    It is normalised (NFKC), so that every grader reads one way of writing.
    """
    start, end = _answer(completion, 0)
    if end < 0:
        start, end = 0, len(completion)
    elif _answer(completion, end)[1] >= 0:
        return None
    text = completion[start:end]
    return None if "<" in text else normal(text).strip() or None


def _answer(text: str, start: int) -> tuple[int, int]:
    """Where the first answer from `start` on begins and ends; -1 as its end if there is none. Linear in the text."""
    tag = text.find("<answer>", start)
    first = tag + len("<answer>")
    return first, text.find("</answer>", first) if tag >= 0 else -1


def formatted(completion: str, thinking: bool) -> bool:
    """Whether the completion is reasoning and an answer in their tags, and nothing else."""
    text = completion.strip()
    if _TAG.findall(text) != (_THOUGHT + _ANSWERED if thinking else _ANSWERED) or not text.endswith("</answer>"):
        return False
    if not thinking:
        return text.startswith("<answer>")
    between = text[text.index("</think>") + len("</think>") : text.index("<answer>")]
    return text.startswith("<think>") and not between.strip()


def formed(question: Question, completion: str) -> bool | None:
    """Whether reasoning and answer stand in their tags, as a target asks; None for a question that asks for a box."""
    return None if question.grader == "boxed" else formatted(completion, "<think>" in question.prompt)


def thought(completion: str) -> str | None:
    """What stands in the one pair of think tags; None where there is no such pair, or others, or an answer within."""
    tags = _TAG.findall(completion)
    if tags.count("<think>") != 1 or tags.count("</think>") != 1:
        return None
    if tags.index("</think>") != tags.index("<think>") + 1:
        return None
    return completion[completion.index("<think>") + len("<think>") : completion.index("</think>")]


def one_of(completion: str, answer: str, words: tuple[str, ...]) -> Grade:
    """Grade an answer that must be one of a few words, whatever their case and the mark that ends them."""
    text = answer_text(completion)
    word = plain(text) if text else None
    if word not in words:
        return UNPARSED
    return all_or_nothing(word, word == answer)


def few_numbers(text: str, count: int, form: str = r"[0-9]{1,4}") -> list[float] | None:
    """Exactly `count` numbers, by default whole ones, separated by blanks, commas or semicolons, in brackets or not."""
    parts = re.split(r"[\s,;]+", text.strip().strip("`[]()").strip())
    if len(parts) != count or not all(re.fullmatch(form, part) for part in parts):
        return None
    return [float(part) for part in parts]
