"""The one number that a text states, with its sign, its thousands and its decimals; docs/graders.md has the rules.

Two numbers that differ are none, so that an answer and a guess beside it are not paid. What cannot be read for certain
(a range, a fraction, a power, ±) makes the text unreadable as a whole.
"""

from __future__ import annotations

import math
import re

from holdfast.benchmarks.grading.answer import UNPARSED, Grade, all_or_nothing, answer_text
from holdfast.benchmarks.grading.text import LETTER, normal

_CHUNK = re.compile(r"\d++(?:[.,']\d++| \d{3}(?!\d))*+(?:[eE][-+]?\d++(?!\w))?", re.ASCII)
"""Digits with what may stand between them; whether it does so in order is for `_size` to say."""
_GROUPED = re.compile(
    r"""[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?      # 1,234,567.8
    | [1-9]\d?(?:,\d\d)+,\d{3}(?:\.\d+)?       # 12,34,567
    | [1-9]\d{0,2}(?:\.\d{3}){2,}(?:,\d+)?     # 1.234.567,8
    | [1-9]\d{0,2}\.\d{3},\d+                  # 1.234,5
    | [1-9]\d{0,2}(?:'\d{3})+(?:[.,]\d+)?      # 1'234'567.8
    | [1-9]\d{0,2}(?:[ ]\d{3})+(?:[.,]\d+)?    # 1 234 567,8""",
    re.VERBOSE | re.ASCII,
)
_DECIMAL = re.compile(r"\d+(?:[.,]\d+)?(?:[eE][-+]?\d+)?", re.ASCII)
_BEFORE = re.compile(r"([-+±]*)(\s*)((?:(?<![A-Za-z])[A-Z]{1,3})?[$€£¥₹₽₩₺฿]\s?|)([-+±]*)(\s*)\Z")
"""Sign, blanks, currency, sign, blanks: what may stand before a number, at the end of WINDOW characters."""
WINDOW = 24
MOST = 500
"""Numbers, those in words included, of a text that is read at all."""
_SIMPLE = re.compile(r"-?\d{1,15}(?:\.\d{1,15})?\.?", re.ASCII)
_MINUS = re.compile(
    rf"(?:(?<!{LETTER})(?:minus|negative|moins|menos|meno|минус)\s+|[负負]|マイナス|零下)\Z", re.IGNORECASE
)
_NOT = re.compile(r"\b(?:not|n't)\s+(?:\w+\s+)?\Z", re.IGNORECASE)
_EQUALS = re.compile(r"(?:^|[:=,;(\[{|>*~]|\b(?:is|are|was|were|be|equals|about|to|of|at))\s*\Z", re.IGNORECASE)
_UNITS = frozenset(
    [
        "m",
        "km",
        "cm",
        "mm",
        "nm",
        "µm",
        "μm",
        "um",
        "dm",
        "ft",
        "in",
        "yd",
        "mi",
        "kg",
        "g",
        "mg",
        "t",
        "lb",
        "lbs",
        "oz",
        "l",
        "ml",
        "cl",
        "dl",
        "L",
        "mL",
        "s",
        "ms",
        "ns",
        "min",
        "h",
        "hr",
        "hrs",
        "d",
        "sec",
        "mph",
        "kph",
        "kmh",
        "Hz",
        "kHz",
        "MHz",
        "GHz",
        "W",
        "kW",
        "MW",
        "V",
        "kV",
        "A",
        "mA",
        "Ah",
        "mAh",
        "Wh",
        "kWh",
        "J",
        "kJ",
        "N",
        "Pa",
        "hPa",
        "kPa",
        "bar",
        "C",
        "F",
        "px",
        "KB",
        "kB",
        "MB",
        "GB",
        "TB",
        "cal",
        "kcal",
        "pt",
        "c",
        "ct",
        "p",
        "USD",
        "EUR",
        "GBP",
        "CHF",
        "JPY",
        "CNY",
        "INR",
        "м",
        "км",
        "см",
        "мм",
        "кг",
        "г",
        "л",
    ]
)
"""What may follow digits without a blank: any other word there (3D, 2nd, 5k) makes them part of a word."""
_UNIT = re.compile(r"[^\W\d_]+")
_SCALE = re.compile(
    r"[ -]?(hundred|thousand|million|billion|trillion|dozen)s?(?!\w)|\s?([百千万萬亿億])", re.IGNORECASE
)
_SCALES = {"hundred": 1e2, "thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12, "dozen": 12.0}
_SCALES |= {"百": 1e2, "千": 1e3, "万": 1e4, "萬": 1e4, "亿": 1e8, "億": 1e8}
_NAMES = "zero _ two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
_WORDS = {name: number for number, name in enumerate(_NAMES.split()) if name != "_"}
_WORDS |= {"seventeen": 17, "eighteen": 18, "nineteen": 19, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50}
"""`one` is a pronoun more often than a number."""
_WORD = re.compile(rf"(?<!\w)(?:{'|'.join(_WORDS)})(?!\w)", re.IGNORECASE)


class _Unreadable(Exception):
    """There is a number, and nobody can say for certain which."""


def grade_number(completion: str, answer: str) -> Grade:
    """The one number in the answer, equal within 1e-6 of its size."""
    text = answer_text(completion)
    found = the_number(text) if text else None
    if found is None:
        return UNPARSED
    right = the_number(normal(answer).strip())
    return all_or_nothing(f"{found:.12g}", right is not None and _same(found, right))


def _same(first: float, second: float) -> bool:
    """Equal within 1e-6 of their size."""
    return math.isclose(first, second, rel_tol=1e-6, abs_tol=1e-9)


def the_number(text: str) -> float | None:
    """The one number in a normal text, however often it stands there; None for no number, or for several."""
    if _SIMPLE.fullmatch(text):
        return float(text) + 0.0
    found: set[float] = set()
    try:
        for count, chunk in enumerate(_CHUNK.finditer(text)):
            if count == MOST:
                return None
            for start, end in _pieces(chunk):
                value = _value(text, start, end)
                if value is not None:
                    found.add(value)
            if len(found) > 1:
                return None
    except _Unreadable:
        return None
    if len(found) != 1:
        return None
    value = found.pop() + 0.0
    # A word is no answer, but two that differ are a hedge in whatever way they are written.
    if not math.isfinite(value) or any(_WORDS[word.lower()] != value for word in _WORD.findall(text)):
        return None
    return value


def _pieces(chunk: re.Match[str]) -> list[tuple[int, int]]:
    """Where its numbers begin and end: blanks that separate no thousands separate numbers."""
    if " " not in chunk[0] or _GROUPED.fullmatch(chunk[0]):
        return [chunk.span()]
    return [(chunk.start() + part.start(), chunk.start() + part.end()) for part in re.finditer(r"\S+", chunk[0])]


def _size(digits: str) -> float:
    """Digits without a sign. `1,234` are thousands, `1.234` and `3,14` decimals."""
    if _GROUPED.fullmatch(digits):
        whole, mark, decimals = digits, "", ""
        last = max(digits.rfind("."), digits.rfind(","))
        if last >= 0 and (len(set(re.sub(r"\d", "", digits))) > 1):
            whole, mark, decimals = digits[:last], ".", digits[last + 1 :]
        return float(re.sub(r"\D", "", whole) + mark + decimals)
    if _DECIMAL.fullmatch(digits):
        return float(digits.replace(",", "."))
    raise _Unreadable


def _value(text: str, start: int, end: int) -> float | None:
    """The number at a place of the text; None for digits that are part of a word."""
    sign = _sign(text, start)
    scale = _scale(text, end)
    if sign is None or scale is None:
        return None
    digits = text[start:end]
    if text[start - 1 : start] == "." and text[start - 2 : start - 1] != ".":
        digits = f"0.{digits}"
    return sign * scale * _size(digits)


def _sign(text: str, start: int) -> float | None:
    """1 or -1; None where a word goes on in the digits."""
    window = text[max(0, start - WINDOW) : start]
    if window.endswith(".") and not window.endswith(".."):
        window = window[:-1]
        if window and re.match(rf"{LETTER}|[)\]]", window[-1]):
            return None
    before = _BEFORE.search(window)
    assert before is not None  # it may be empty
    signs = before[1] + before[4]
    left = window[: before.start()]
    if signs:
        if not before[1] and before[2]:
            left += before[2]
        return _signed(signs, left, bool(before[5] or (before[1] and before[2])))
    last = window[: before.start(3)] if before[3] else window
    if not before[3] and last and not last[-1].isspace():
        _refuse_half(last)
        if re.match(LETTER, last[-1]) or (last[-1] == "^"):
            return None
    if _NOT.search(window):
        raise _Unreadable
    return -1.0 if _MINUS.search(last) else 1.0


def _signed(signs: str, left: str, apart: bool) -> float | None:
    """What a sign means after the text `left`, where blanks keep it `apart` from its number or not."""
    if signs not in ("-", "+"):
        raise _Unreadable
    last = left[-1:]
    if last and not last.isspace() and not apart and re.match(LETTER, last) and not last.isdigit():
        return None
    if signs == "+":
        return 1.0
    if _MINUS.search(left + " ") or re.match(r"\d|[)\]%°]", last) or re.search(r"\d\s*\Z", left):
        raise _Unreadable
    # A dash with blanks on both sides is a sign where a number is due, and else may be a pause.
    if apart and not _EQUALS.search(left):
        raise _Unreadable
    return -1.0


def _refuse_half(left: str) -> None:
    """Half of a fraction, a power, a time, or of digits that go on is no number."""
    if re.search(r"\d[/:^.,']\Z", left):
        raise _Unreadable


def _scale(text: str, end: int) -> float | None:
    """What the words behind a number multiply it by; None where the digits go on as a word that is no unit."""
    tail = text[end : end + WINDOW]
    if re.match(r"[/:^.,']\d|\^|_|\s?±", tail):
        if tail[0] == "_":
            return None
        raise _Unreadable
    scaled = _SCALE.match(tail)
    if scaled:
        return _SCALES[(scaled[1] or scaled[2]).lower()]
    word = _UNIT.match(tail)
    if word and re.match(LETTER, word[0]) and word[0] not in _UNITS:
        return None
    return 1.0
