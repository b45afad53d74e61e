"""Captioned counting: which number belongs in the caption?

The score is the smaller of the two numbers over the larger, so that a near miss earns more than a far one.
"""

from __future__ import annotations

import re
from itertools import product

from holdfast.benchmarks.grading.answer import UNPARSED, Grade, answer_text
from holdfast.benchmarks.grading.lenient import the_named
from holdfast.benchmarks.grading.text import plain
from holdfast.benchmarks.question import Annotation, Draw, TargetQuestion
from holdfast.config.targets import Counting
from holdfast.data.grid import PLACES, grid_scene, plural, scattered
from holdfast.data.grid import SIZE as SIDE
from holdfast.data.world import COLORS, SHAPES, generator

SIZE = (SIDE, SIDE)
COLUMNS = ("caption",)
WORDS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
NUMBERS = {word: number for number, word in enumerate(WORDS, start=2)}
"""Number words of a caption. `one` is left out: in captions it is a pronoun more often than a count."""
_STATED = re.compile(rf"(?<![\w.,:/-])(?:[1-9]\d?|{'|'.join(NUMBERS)})(?![\w:/%-]|[.,]\d)", re.IGNORECASE)
GAP = "?"


def ask(target: Counting, draw: Draw) -> TargetQuestion:
    """Count the things of one shape among others; shapes take turns, and so do numbers."""
    shape = SHAPES[draw.turn("shape", len(SHAPES))]
    count = 1 + draw.turn(f"count of {shape}", largest(target), draw.number // len(SHAPES))
    rng = generator("counting", draw.seed, draw.split, draw.number)
    room = round(target.difficulty * (PLACES - count))
    kinds = [shape] * count + [other for other in SHAPES if other != shape] * 3
    rest = rng.permutation(len(kinds) - count)[: rng.integers(0, room + 1)] + count
    shapes = [*kinds[:count], *(kinds[place] for place in rest)]
    looks = [(tuple(COLORS)[rng.integers(len(COLORS))], kind) for kind in shapes]
    scene = grid_scene(rng, scattered(rng, looks))
    cells = ", ".join(str(thing.place + 1) for thing in scene.things if thing.shape == shape)
    caption = f"Number of {plural(shape)}: {GAP}"
    reasoning = f"Row by row, I find {plural(shape)} in cells {cells}."
    facts = tuple(f"cell {thing.place + 1} {thing.color} {thing.shape}" for thing in scene.things)
    return _question(Annotation((scene.image,), caption=caption), count, reasoning)._replace(facts=facts)


def read(row: Annotation, _target: Counting, _draw: Draw) -> TargetQuestion | None:
    """The row's caption without its number, if it states just one."""
    found = stated(row.caption)
    if found is None:
        return None
    caption, count = found
    return _question(row._replace(caption=caption), count, "I count what the caption speaks of, one after another.")


def grade(completion: str, answer: str) -> Grade:
    """One whole number, in digits or as a word."""
    text = answer_text(completion)
    word = plain(text) if text else ""
    given = int(word) if re.fullmatch(r"[0-9]{1,4}", word) else {"one": 1, **NUMBERS}.get(word)
    if given is None:
        return UNPARSED
    score = closeness(given, int(answer))
    return Grade(str(given), score == 1.0, score)


def named(text: str, _answer: str) -> str | None:
    """The one number below a hundred that a text names, in digits or up to ten as a word; None for several."""
    return the_named(text, tuple(map(str, range(100))))


def chance(target: Counting) -> float:
    """Numbers are equally frequent."""
    numbers = range(1, largest(target) + 1)
    return sum(closeness(given, right) for given, right in product(numbers, repeat=2)) / len(numbers) ** 2


def largest(target: Counting) -> int:
    """The largest number that is drawn: three to eight."""
    return 3 + round(5 * target.difficulty)


def closeness(given: int, right: int) -> float:
    """The smaller of two numbers over the larger; `right` is positive."""
    return min(given, right) / max(given, right)


def stated(caption: str) -> tuple[str, int] | None:
    """A caption with a gap for its number, and the number; None unless it states exactly one."""
    found = list(_STATED.finditer(caption))
    if len(found) != 1:
        return None
    word = found[0][0].lower()
    number = NUMBERS.get(word) or int(word)
    return f"{caption[: found[0].start()]}{GAP}{caption[found[0].end() :]}".strip(), number


def _question(row: Annotation, count: int, reasoning: str) -> TargetQuestion:
    prompt = f"Which number belongs in the caption: {row.caption}"
    return TargetQuestion(row.images, prompt, str(count), reasoning, str(count), "counting")
