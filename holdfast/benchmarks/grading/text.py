"""One way of writing for what Unicode can write in several: every grader reads text in this form."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

BLANKLESS = (
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u3007\u3040-\u318f\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003134f"
)
"""Thai, Lao, Tibetan, Burmese, Khmer, Chinese and Japanese, which put no blanks between words, and Korean, whose
particles follow a noun without one: for a class of a regular expression."""
LETTER = rf"[^\W{BLANKLESS}]"
"""What continues a word: a letter, digit or low line of a script with blanks. Any other character ends one."""

_PIECE = 1000
"""Normalising takes time quadratic in a run of combining marks: 4 s for 64 KB of them at once, 0.1 s in pieces."""
_SUPER = "\u00b2\u00b3\u00b9\u2070\u2074-\u207b"
_PARTS = (
    "\u00bc-\u00be\u2080-\u2089\u2150-\u215f\u2189\u2460-\u249b\u24ea\u3251-\u325f\u32b1-\u32cb\u3358-\u3370"
    "\u33e0-\u33fe"
)
"""What NFKC writes as digits and is no digit of the number before it: fractions, indices, circled numbers, days."""
_POWER = re.compile(rf"(?<![^\W\d_])(?=[{_SUPER}])")
_APART = re.compile(rf"(?<=[\d{_SUPER}{_PARTS}])(?=[{_PARTS}])")
_FOLDED = {
    **dict.fromkeys(map(ord, "‐‑‒–—―−﹘"), "-"),
    **dict.fromkeys(map(ord, "‘’‚‛′ʼ´‹›"), "'"),
    **dict.fromkeys(map(ord, "“”„‟″«»「」『』"), '"'),
    **dict.fromkeys(map(ord, "【〔〖"), "["),
    **dict.fromkeys(map(ord, "】〕〗"), "]"),
    **dict.fromkeys([0xAD, 0x34F, 0x61C, 0x180E, *range(0x200B, 0x2010), *range(0x202A, 0x202F)]),
    **dict.fromkeys([*range(0x2060, 0x2070), *range(0xFE00, 0xFE10), 0xFEFF]),
}
"""Dashes and quotation marks as on a keyboard; what cannot be seen (joiners, marks of direction) is left out."""
_ENDS = " .!?;。؟۔؞।॥။၊։෴።፧፨᙮។៕᠃᠉།༎⸮⸼꓿‽"
_BEGINNINGS = " ¿¡"


def normal(text: str) -> str:
    """Text in NFKC (UAX #15), its dashes and quotation marks those of a keyboard.

    NFKC writes 10² as 102 and 5½ as 51⁄2; here they are 10^2 and 5 1/2. The ² of m² is the 2 of m2.
    """
    if text.isascii():
        return text
    text = _APART.sub(" ", _POWER.sub("^", text.translate(_FOLDED)))
    pieces = (text[start : start + _PIECE] for start in range(0, len(text), _PIECE))
    return "".join(unicodedata.normalize("NFKC", piece) for piece in pieces).replace("\u2044", "/")


def plain(text: str) -> str:
    """Normal text without what the same answer may differ in: case, spacing, and the marks that end a sentence."""
    folded = " ".join(normal(text).casefold().split())
    if not folded.isascii():
        folded = normal(folded)
    return folded.lstrip(_BEGINNINGS).rstrip(_ENDS) or folded


def majority(answers: Sequence[str]) -> str:
    """The answer that is given most often, whatever its case and spacing; of several such, the one that came first."""
    often = Counter(map(plain, answers))
    return max(answers, key=lambda answer: often[plain(answer)])
