r"""The number that a worked solution ends with: `9 * 2 = 18`, `\boxed{18 \text{ m}^2}`."""

from __future__ import annotations

import re

from holdfast.benchmarks.grading.numbers import the_number

_WRAPPED = re.compile(r"\\(?:text|math|mbox|operatorname|boxed)[a-z]{0,8}\s?\{([^{}]*)\}(?:\^\{?-?\d{1,3}\}?)?")
_KEPT = re.compile(r"\d|^[^A-Za-z]*$|\b(?:or|and|to|not|minus|negative)\b", re.IGNORECASE)
"""What of text in LaTeX may change a number; units do not."""
_DEPTH = 4
"""Commands within commands that are unwrapped."""
_EXPONENT = re.compile(r"(?<=[A-Za-z])\^\{?-?\d{1,3}\}?|\^\{?\\circ\}?")
_BLANK = re.compile(r"\\(?:[()\[\],;:! \\]|q?quad\b|left\b|right\b|approx\b)")
_ESCAPED = re.compile(r"\\([$%])|\{(,)\}")
_HEDGE = re.compile(r"\b(?:or|and|either|maybe|perhaps|not)\b|[;?\n]|,(?!\d)|[!<>]\s*\Z", re.IGNORECASE)


def the_result(text: str) -> float | None:
    """The one number in what follows the last `=` of a normal text, or in all of it; None for none or several.

    Units in LaTeX and their exponents are left out. What stands before the last `=` is how it was worked out, unless
    it offers another answer ("x = 3 or x = 18").
    """
    text = _ESCAPED.sub(r"\1\2", _BLANK.sub(" ", _EXPONENT.sub("", _unwrapped(text))))
    worked, _, last = text.rpartition("=")
    if _HEDGE.search(worked) or re.search(r"\\[A-Za-z]", last):
        return None
    return the_number(last.strip())


def _unwrapped(text: str) -> str:
    for _ in range(_DEPTH):
        text, found = _WRAPPED.subn(_content, text)
        if not found:
            break
    return text


def _content(found: re.Match[str]) -> str:
    return f" {found[1]} " if _KEPT.search(found[1]) else " | "
