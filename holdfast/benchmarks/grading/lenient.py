r"""Answers read out of what real models write: reasoning, `\boxed{B}`, "(B)", a sentence that names one option.

Strict graders say whether the form was kept; these say whether the knowledge is there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from holdfast.benchmarks.grading.answer import answer_text
from holdfast.benchmarks.grading.options import the_letter
from holdfast.benchmarks.grading.text import BLANKLESS, LETTER, normal, plain

LONGEST = 100_000
"""Characters of a completion that are read, from its end."""
_CUE = re.compile(r"\b(?:answer|choice|option)\b(?: is| would be)?[:\s]|答案[是为：:]", re.IGNORECASE)
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


def the_option(completion: str, options: Mapping[str, str]) -> str | None:
    """The letter of the one option that a completion chooses, by its letter or by its text; None for none or several.

    What follows the last "the answer is" counts before the text as a whole.
    """
    text = final_answer(completion)
    cues = list(_CUE.finditer(text))
    for part in [*(text[cue.end() :] for cue in cues[-1:]), text]:
        letter = the_letter(part)
        if letter in options:
            return letter
        named = the_named(part, tuple(options.values()))
        if named is not None:
            return next(letter for letter, option in options.items() if option == named)
    return None


def the_named(text: str, options: tuple[str, ...]) -> str | None:
    """The one option that a text names as whole words; None for none or several. Numbers may be written as words.

    An option that is only a part of another one that is named does not count beside it.
    """
    there = plain(text)
    found = [(option, place) for option in dict.fromkeys(options) for place in _places(option, there)]
    longest = {
        option
        for option, (start, end) in found
        if not any(a <= start and end <= b and b - a > end - start for _, (a, b) in found)
    }
    return longest.pop() if len(longest) == 1 else None


def _places(option: str, text: str) -> list[tuple[int, int]]:
    """Where a plain text has the option, as itself or as the word of its number."""
    wanted = plain(option)
    words = [wanted, _NUMBERS[int(wanted)]] if wanted.isdecimal() and int(wanted) < len(_NUMBERS) else [wanted]
    return [found.span() for word in words if word for found in re.finditer(_whole(word), text)]


def _whole(word: str) -> str:
    left = "" if re.match(f"[{BLANKLESS}]", word[0]) else f"(?<!{LETTER})"
    right = "" if re.match(f"[{BLANKLESS}]", word[-1]) else f"(?!{LETTER})"
    return left + re.escape(word) + right
