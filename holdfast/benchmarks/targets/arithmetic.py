r"""Word problems of school arithmetic, in the manner of GSM8K: a story of several steps, and a whole number.

A step changes what somebody has: more come, some go, packs of several come, it is multiplied or shared out. Which
split a story may be asked in is decided by its numbers, so that no two splits share one.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from holdfast.benchmarks.grading.answer import UNPARSED, Grade, all_or_nothing, answer_text
from holdfast.benchmarks.grading.lenient import LONGEST, boxed, without_reasoning
from holdfast.benchmarks.grading.results import the_result
from holdfast.benchmarks.grading.text import normal
from holdfast.benchmarks.question import Annotation, Draw, TargetQuestion
from holdfast.config.targets import Arithmetic
from holdfast.data.world import generator

COLUMNS = ("question", "answer")
NAMES = ("Ana", "Ben", "Chidi", "Dana", "Emil", "Fatima", "Goro", "Hana", "Ivan", "Jaya", "Kofi", "Lena")
THINGS = ("apples", "beads", "books", "buttons", "cards", "coins", "eggs", "marbles", "pens", "shells", "stamps")
SHARES = {"test": (0, 1), "validation": (2,)}
"""Of the eighths that a story's digest falls in; the others are for training."""
_ANNOTATED = re.compile(r"<<.*?>>")
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


class Step(NamedTuple):
    """What happens, how it is worked out, and what is there afterwards."""

    told: str
    worked: str
    left: int


def _more(there: int, most: int, rng: np.random.Generator) -> Step:
    count = int(rng.integers(2, most + 1))
    return Step(f"get {count} more", f"{there} + {count} = {there + count}", there + count)


def _fewer(there: int, most: int, rng: np.random.Generator) -> Step | None:
    if there < 4:
        return None
    count = int(rng.integers(2, min(there - 1, most) + 1))
    return Step(f"give {count} away", f"{there} - {count} = {there - count}", there - count)


def _packs(there: int, most: int, rng: np.random.Generator) -> Step:
    packs, each = int(rng.integers(2, 6)), int(rng.integers(2, max(3, most // 4) + 1))
    new = packs * each
    worked = f"{packs} * {each} = {new}, {there} + {new} = {there + new}"
    return Step(f"buy {packs} packs of {each}", worked, there + new)


def _times(there: int, most: int, rng: np.random.Generator) -> Step | None:
    factor = int(rng.integers(2, 5))
    if there * factor > 20 * most:
        return None
    told = f"collect until there are {factor} times as many"
    return Step(told, f"{there} * {factor} = {there * factor}", there * factor)


def _shared(there: int, _most: int, rng: np.random.Generator) -> Step | None:
    parts = [part for part in range(2, 7) if there % part == 0 and there > part]
    if not parts:
        return None
    part = int(rng.choice(parts))
    others = f"{part - 1} others" if part > 2 else "a friend"
    return Step(f"share them equally with {others}", f"{there} / {part} = {there // part}", there // part)


STEPS: tuple[Callable[[int, int, np.random.Generator], Step | None], ...] = (_more, _fewer, _packs, _times, _shared)


def ask(target: Arithmetic, draw: Draw) -> TargetQuestion:
    """A story whose number of steps takes turns: two or three, and with difficulty up to five, and larger numbers."""
    lengths = range(2, 4 + round(2 * target.difficulty))
    steps = lengths[draw.turn("steps", len(lengths))]
    most = 10 + round(40 * target.difficulty)
    rng = generator("arithmetic", draw.seed, draw.split, draw.number)
    while True:
        start = int(rng.integers(3, most + 1))
        story = _story(start, steps, most, rng)
        if _split(start, story) == (draw.split if draw.split in SHARES else "train"):
            break
    name, things = NAMES[rng.integers(len(NAMES))], THINGS[rng.integers(len(THINGS))]
    events = [f"{name} {_third(step.told)}." for step in story]
    prompt = f"{name} has {start} {things}. {' Then '.join(events)} How many {things} does {name} have now?"
    reasoning = ". ".join(step.worked for step in story)
    answer = str(story[-1].left)
    return TargetQuestion((), prompt, answer, f"{reasoning}. The answer is {answer}.", f"{steps} steps", "arithmetic")


def read(row: Annotation, _target: Arithmetic, _draw: Draw) -> TargetQuestion | None:
    """A row in GSM8K's form: an answer of a worked solution, then ####, then a number, or of the number alone."""
    worked, _, last = row.answer.rpartition("####")
    number = last.strip().replace(",", "")
    if not row.question or not re.fullmatch(r"-?\d+(\.\d+)?", number):
        return None
    reasoning = _ANNOTATED.sub("", worked).strip() or "I work it out step by step."
    return TargetQuestion((), row.question, number, reasoning, "", "arithmetic")


def grade(completion: str, answer: str) -> Grade:
    r"""The result in the answer's tags; without tags that in the last `\boxed{}`, or the last number, of what follows
    #### or of all.
    """
    found = _given(completion)
    return UNPARSED if found is None else all_or_nothing(f"{found:.12g}", math.isclose(found, float(answer)))


def chance(_target: Arithmetic) -> float:
    """Numbers are not guessed: of the answers to other questions, at most one in thirty is right."""
    return 0.0


def _given(completion: str) -> float | None:
    if "<answer>" in completion:
        text = answer_text(completion)
        return the_result(text) if text else None
    text = normal(without_reasoning(completion)[-LONGEST:])
    inside = boxed(text)
    if inside is not None:
        return the_result(inside)
    numbers = _NUMBER.findall(text.rpartition("####")[2])
    return float(numbers[-1].replace(",", "")) if numbers else None


def _story(start: int, steps: int, most: int, rng: np.random.Generator) -> list[Step]:
    """Steps that can be taken one after the other, none of a kind twice in a row."""
    story: list[Step] = []
    before, there = None, start
    while len(story) < steps:
        kind = int(rng.integers(len(STEPS)))
        step = None if kind == before else STEPS[kind](there, most, rng)
        if step is not None:
            story.append(step)
            before, there = kind, step.left
    return story


def _split(start: int, story: list[Step]) -> str:
    """Where a story of these numbers belongs, whoever it is about."""
    told = "/".join([str(start), *(step.told for step in story)])
    eighth = hashlib.sha256(told.encode()).digest()[0] % 8
    return next((split for split, eighths in SHARES.items() if eighth in eighths), "train")


def _third(told: str) -> str:
    """In the third person: `get` is `gets`."""
    verb, _, rest = told.partition(" ")
    return f"{verb}s {rest}"
