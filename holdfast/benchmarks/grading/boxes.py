"""Boxes in the shapes in which models and data sets write them; docs/graders.md has the rules.

A box is four numbers x1, y1, x2, y2. Numbers of labels, scores and sentences are no coordinates: where it is not
certain which numbers make up a box, the text holds none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from holdfast.benchmarks.grading.answer import answer_text, few_numbers
from holdfast.benchmarks.question import Box

LARGEST = 1_000_000
"""Coordinates are below it, and not negative: a box lies in its image."""
LONGEST = 50_000
"""Characters of a text that is read: some two thousand boxes."""
_SIDE = r"[0-9]{1,6}(?:\.[0-9]{1,20})?"
_LABEL = re.compile(r"<\|object_ref_start\|>[^<]{0,500}<\|object_ref_end\|>|<ref>[^<]{0,500}</ref>")
_MARK = re.compile(r"<\|box_(?:start|end)\|>|</?b?box>")
_REWRITTEN: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"```[a-zA-Z]*|`"), " "),
    # 1. [10, 20, 30, 40]
    (re.compile(r"^[ \t]*[0-9]{1,4}[.):][ \t]+(?=[\[({\"])", re.MULTILINE), " "),
    # (10, 20) - (30, 40)
    (re.compile(r"\)\s{0,9}(?:->|-|to|and|→|~)\s{0,9}\("), "), ("),
    # "[10, 20, 30, 40]"
    (re.compile(r"(?<![^\s:,(\[])([\"'])([\s.,;()\[\]]{0,3}[0-9][\s0-9.,;()\[\]]*)\1"), r" \2 "),
    # x1, y1, x2, y2 = 10, 20, 30, 40
    (re.compile(r"[(\[]?\bx_?1,?\s?y_?1,?\s?x_?2,?\s?y_?2\b[)\]]?\s?[:=]?", re.IGNORECASE), " "),
    (re.compile(r"\b([xy](?:_?(?:min|max)|_?[0-2]))\s+(?=[0-9])", re.IGNORECASE), r"\1: "),
    (re.compile(r"\b(top|bottom|upper|lower)[ _-](left|right)\b", re.IGNORECASE), r"\1\2"),
    (re.compile(r"(?<=[0-9])\s?(?:px|pixels?)\b"), " "),
)
_TOKEN = re.compile(
    r"""(?P<key>(?:"(?:[^"\\\n]|\\.)*+"|(?<!\w)'[^'\n]*'|[^\W\d]\w*)\s{0,3}[:=])
    | (?P<string>"(?:[^"\\\n]|\\.)*+"|(?<!\w)'[^'\n]*')
    | (?P<number>[-+]?(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][-+]?[0-9]++)?(?![\w%]|\.[0-9]))
    | (?P<open>[\[({]) | (?P<close>[\])}]) | (?P<part>;) | (?P<between>[\s,、|.。!?*_$\\\#]+|["'])
    | (?P<word>\w+(?:\.\w+)*|.)""",
    re.VERBOSE | re.DOTALL,
)
_BOX_KEYS = frozenset(
    [
        "bbox",
        "bbox2d",
        "bboxes",
        "box",
        "box2d",
        "boxes",
        "boundingbox",
        "boundingboxes",
        "coordinates",
        "coords",
        "position",
        "location",
        "rect",
        "xyxy",
    ]
)
_CORNERS = (
    ("x1", "y1", "x2", "y2"),
    ("x0", "y0", "x1", "y1"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("minx", "miny", "maxx", "maxy"),
    ("left", "top", "right", "bottom"),
)
_SIZED = (("x", "y", "w", "h"), ("x", "y", "width", "height"), ("left", "top", "width", "height"))
"""A corner and the box's size."""
_SIDES = frozenset(name for scheme in (*_CORNERS, *_SIZED) for name in scheme)
_POINTS = {"topleft": ("left", "top"), "upperleft": ("left", "top")}
_POINTS |= {"bottomright": ("right", "bottom"), "lowerright": ("right", "bottom")}
_HALF_NAMED = _SIDES - {"left", "top", "right", "bottom", "width", "height"}


def answered(completion: str) -> list[Box] | None:
    """The boxes of a completion's answer, which may hold Qwen's and InternVL's marks of boxes; None for none."""
    if "<|" in completion or "box>" in completion:
        completion = _MARK.sub(" ", _LABEL.sub(" ", completion))
    return boxes(answer_text(completion) or "")


def boxes(text: str) -> list[Box] | None:
    """The boxes of a normal text, in its order; None if it holds none, or if it is not certain which."""
    if len(text) > LONGEST:
        return None
    balanced = text.count("[") == text.count("]") and text.count("(") == text.count(")")
    few = few_numbers(text, 4, _SIDE) if balanced else None
    if few is not None:
        return [(few[0], few[1], few[2], few[3])]
    for pattern, form in _REWRITTEN:
        text = pattern.sub(form, text)
    found = _Scan(text).boxes()
    if not found or not all(0 <= side < LARGEST for box in found for side in box):
        return None
    return found


def written(found: Sequence[Box]) -> str:
    """x1 y1 x2 y2; x1 y1 x2 y2."""
    return "; ".join(" ".join(f"{side:g}" for side in box) for box in found)


class _Run:
    """Numbers with nothing but brackets and commas between them, by their innermost brackets."""

    def __init__(self, key: str, depth: int) -> None:
        self.key, self.depth = key, depth
        self.groups: list[list[float]] = [[]]
        self.spoiled = False
        """Whether there are words in its brackets."""

    @property
    def empty(self) -> bool:
        return len(self.groups) == 1 and not self.groups[0]

    def boxes(self) -> list[Box] | None:
        """Every group one box, or every two groups one as two points; a single group may hold several."""
        groups = [group for group in self.groups if group]
        sizes = {len(group) for group in groups}
        if (sizes == {2} and len(groups) % 2 == 0) or (len(groups) == 1 and sizes and not len(groups[0]) % 4):
            pass
        elif sizes != {4}:
            return None
        sides = [side for group in groups for side in group]
        return [(sides[i], sides[i + 1], sides[i + 2], sides[i + 3]) for i in range(0, len(sides), 4)]


class _Level(NamedTuple):
    """An open bracket, and the key that stood before it."""

    bracket: str
    key: str
    spoiled: bool = False


class _Scan:
    """One pass over a text's tokens."""

    def __init__(self, text: str) -> None:
        self.levels: list[_Level] = []
        self.key = ""
        self.run = _Run("", 0)
        self.keyed: list[Box] = []
        """Under a key that means a box."""
        self.bracketed: list[Box] = []
        self.bare: list[Box] = []
        self.sides: dict[str, float] = {}
        self.strays, self.words, self.broken = False, False, False
        for token in _TOKEN.finditer(text):
            assert token.lastgroup is not None
            if token.lastgroup != "between":
                getattr(self, f"_{token.lastgroup}")(token[0])
            if self.broken:
                return
        self._cut()
        self.broken |= bool(self.levels)

    def boxes(self) -> list[Box] | None:
        """Those under keys that mean boxes; else those in brackets and those that stand free."""
        if self.broken:
            return None
        if self.keyed:
            return self.keyed
        if self.strays and not (self.bracketed and self.words):
            return None
        return self.bracketed + self.bare

    def _cut(self) -> None:
        """The run of numbers is over; see what it was."""
        run, self.run = self.run, _Run(self.key, len(self.levels))
        sides = [side for group in run.groups for side in group]
        if not sides:
            return
        found = None if run.spoiled else run.boxes()
        if run.key in _POINTS and len(sides) == 2:
            for name, side in zip(_POINTS[run.key], sides, strict=True):
                self._side(name, side)
        elif run.key in _BOX_KEYS:
            self.broken |= found is None
            self.keyed += found or []
        elif found is not None:
            (self.bracketed if run.depth else self.bare).extend(found)
        elif not run.key:
            self.strays = True
            self.broken |= bool(run.depth) and not run.spoiled

    def _side(self, name: str, side: float) -> None:
        """A side by its name; the box, once all four are there."""
        self.broken |= name in self.sides
        self.sides[name] = side
        for scheme in (*_CORNERS, *_SIZED):
            if name in scheme and all(part in self.sides for part in scheme):
                x1, y1, x2, y2 = (self.sides.pop(part) for part in scheme)
                self.keyed.append((x1, y1, x1 + x2, y1 + y2) if scheme in _SIZED else (x1, y1, x2, y2))
                return

    def _key(self, token: str) -> None:
        self.words |= not self.levels
        self.key = re.sub(r"[\W_]", "", token).lower()
        self._cut()

    def _string(self, token: str) -> None:
        if not self.levels:
            self._word(token)

    def _number(self, token: str) -> None:
        if self.key in _SIDES and self.run.empty and self.run.depth == len(self.levels):
            self._side(self.key, float(token))
            self.key = self.run.key = ""
            return
        if not self.levels and self.run.depth:
            self._cut()
        self.run.spoiled |= bool(self.levels) and self.levels[-1].spoiled
        self.run.groups[-1].append(float(token))

    def _open(self, token: str) -> None:
        self.levels.append(_Level(token, self.key))
        if token == "{":
            self.key = ""
            self._cut()
        elif not self.run.depth and not self.run.empty:
            self._cut()
        self.run.depth = self.run.depth if self.run.depth and not self.run.empty else len(self.levels)
        self.run.groups.append([])

    def _close(self, _token: str) -> None:
        if not self.levels:
            self.broken = True
            return
        level = self.levels.pop()
        self.key = level.key
        if level.bracket == "{":
            self._cut()
            self.sides = {}
        self.run.groups.append([])

    def _part(self, _token: str) -> None:
        if not self.levels:
            self.run.groups.append([])

    def _word(self, token: str) -> None:
        if re.fullmatch(r"[0-9][0-9.]*", token):
            self.broken |= "." in token
        if self.levels and self.levels[-1].bracket == "{":
            return
        self.words = True
        if self.levels:
            # (2 people): what stood before the word in these brackets is no box, other brackets may be one.
            self.strays |= bool(self.run.groups[-1])
            self.run.groups[-1] = []
            self.levels[-1] = self.levels[-1]._replace(spoiled=True)
        else:
            self.key = ""
            self.broken |= token.lower() in _HALF_NAMED
        self._cut()
