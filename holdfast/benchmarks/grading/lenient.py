r"""Answers read out of what real models write: reasoning, `\boxed{B}`, "(B)", a sentence that names one option.

Strict graders say whether the form was kept; these say whether the knowledge is there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from holdfast.benchmarks.grading.answer import answer_text
from holdfast.benchmarks.grading.options import letters, the_letter
from holdfast.benchmarks.grading.statements import (
    after_last_cue,
    denied,
    opening,
    stated,
    without_asides,
    without_denied,
)
from holdfast.benchmarks.grading.text import BLANKLESS, LETTER, normal, plain

LONGEST = 100_000
"""Characters of a completion that are read, from its end."""
_NEGATED = re.compile(
    r"(?:\b(?:no|not|never|cannot|without|neither|nor)|n't)\s"
    r"(?:(?:be|see|show|have|contain|depict|find|mean)\s)?(?:(?:an?|the|any|really|actually)\s)*\Z"
)
_BEFORE, _AFTER = " \t\n*_`\"':", " \t\n*_`\"'.!:"
"""What markup puts around an answer; a point before a number is a part of it."""
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def without_reasoning(completion: str) -> str:
    """What stands after the last `</think>`; nothing where reasoning was begun and not ended."""
    before, closed, after = completion.rpartition("</think>")
    if "<think>" in after:
        return after.partition("<think>")[0]
    return after if closed or not before else completion


def final_answer(completion: str) -> str:
    r"""The answer proper: in the one pair of answer tags, else in the last `\boxed{}`, else all after the reasoning."""
    text = without_reasoning(completion)[-LONGEST:]
    if "<answer>" in text:
        return answer_text(text) or ""
    inside = boxed(text)
    return normal(text if inside is None else inside).strip()


def boxed(text: str) -> str | None:
    r"""What the last `\boxed{…}` holds, braces within it balanced; None where there is none that is closed."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth = 0
    for place in range(start + len("\\boxed"), len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if not depth:
            return text[start + len("\\boxed{") : place]
    return None


def unmarked(text: str) -> str:
    """Text without the emphasis, quotation marks and full stop around it."""
    return text.lstrip(_BEFORE).rstrip(_AFTER)


def the_option(completion: str, options: Mapping[str, str]) -> str | None:
    """The letter of the one option that a completion chooses, by its letter or by its text; None for none or several.

    What follows the last "the answer is" counts first, then a letter alone at the beginning, then the text as a whole.
    What is said to be wrong is not chosen, and "option A" in an explanation takes nothing back.
    """
    text = final_answer(completion)
    said = without_denied(text)
    for part in stated(said, options):
        marked = letters(part)
        letter = _by_letter(part, options) or (_by_text(part, options) if len(marked) < 2 else None)
        if letter is not None:
            return letter
        if marked:
            break
    begun = opening(said, options)
    if begun is not None:
        part, rest = begun
        letter = _by_letter(part, options)
        if letter is not None and the_letter(without_asides(rest)) in (None, letter):
            return letter
    tail, plainly = after_last_cue(said), without_asides(said)
    letter = _by_letter(tail, options) or _by_text(tail, options)
    letter = letter or _by_letter(plainly, options) or _by_letter(said, options)
    if letter is not None:
        return letter
    letter = _by_text(plainly, options) or _by_text(said, options)
    return None if letter in denied(text) else letter


def _by_letter(text: str, options: Mapping[str, str]) -> str | None:
    letter = the_letter(text)
    return letter if letter in options else None


def _by_text(text: str, options: Mapping[str, str]) -> str | None:
    named = the_named(text, tuple(options.values()))
    return None if named is None else next(letter for letter, option in options.items() if option == named)


def the_named(text: str, options: tuple[str, ...]) -> str | None:
    """The one option that a text names as whole words; None for none or several. Numbers may be written as words.

    An option that is only a part of another one that is named does not count beside it, and none is chosen where its
    mention is negated ("no dog", "not a dog").
    """
    there = plain(text)
    found = [(option, place) for option in dict.fromkeys(options) for place in _places(option, there)]
    parts = _within_another({place for _, place in found})
    longest = {option for option, place in found if place not in parts}
    if len(longest) != 1:
        return None
    [only] = longest
    negated = any(_NEGATED.search(there[max(0, a - 40) : a]) for option, (a, _) in found if option == only)
    return None if negated else only


def _within_another(places: set[tuple[int, int]]) -> set[tuple[int, int]]:
    """Those that lie within another one."""
    reached, within = -1, set()
    for start, end in sorted(places, key=lambda place: (place[0], -place[1])):
        if end <= reached:
            within.add((start, end))
        reached = max(reached, end)
    return within


def _places(option: str, text: str) -> list[tuple[int, int]]:
    """Where a plain text has the option, as itself or as the word of its number."""
    wanted = plain(option)
    words = [wanted, _NUMBERS[int(wanted)]] if wanted.isdecimal() and int(wanted) < len(_NUMBERS) else [wanted]
    return [found.span() for word in words if word for found in re.finditer(_whole(word), text)]


def _whole(word: str) -> str:
    left = "" if re.match(f"[{BLANKLESS}]", word[0]) else f"(?<!{LETTER})"
    right = "" if re.match(f"[{BLANKLESS}]", word[-1]) else f"(?!{LETTER})"
    return left + re.escape(word) + right
