"""Near duplicates in two splits: a picture that was resized, compressed or retouched is warned of, and stays."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from holdfast.errors import brief

LEAST = 24
"""Marks that a pattern of 256 needs; with fewer, a picture is too even to be told from another."""
SHARED = 0.75
"""Of the marks that either of two pictures has, the share that near duplicates have in common."""
BLOCK = 2**21
"""Pairs of pictures that are compared at a time."""


class NearDuplicates:
    """Patterns (`pixels.pattern`) of pictures by name."""

    def __init__(self) -> None:
        self.patterns: dict[str, np.ndarray] = {}

    def add(self, name: str, pattern: np.ndarray) -> None:
        """Remember a picture, if there is enough to see in it."""
        if np.bitwise_count(pattern).sum() >= LEAST:
            self.patterns[name] = pattern

    def warning(self, splits: dict[str, str]) -> str:
        """A sentence on near duplicates in two splits; empty if there are none. `splits` has each picture's by name."""
        names: dict[str, list[str]] = {}
        for name, split in splits.items():
            if name in self.patterns:
                names.setdefault(split, []).append(name)
        few = sorted(names, key=lambda split: len(names[split]))
        pairs = [
            (name, other, one, two)
            for one, two in combinations(few, 2)
            for name, other in self._pairs(names[one], names[two])
        ]
        if not pairs:
            return ""
        name, other, one, two = pairs[0]
        return (
            f"{len(pairs)} image(s) look like one of another split, for example {brief(name)} ({one}) like "
            f"{brief(other)} ({two}); both stay, so take one away if they show the same."
        )

    def _pairs(self, few: list[str], many: list[str]) -> list[tuple[str, str]]:
        """Each of the few with the first of the many that is its near duplicate."""
        ours, theirs = (np.stack([self.patterns[name] for name in names]) for names in (few, many))
        step = max(1, BLOCK // len(many))
        pairs = []
        for start in range(0, len(few), step):
            some = ours[start : start + step, None]
            both = np.bitwise_count(some & theirs).sum(-1, dtype=np.uint16)
            either = np.bitwise_count(some | theirs).sum(-1, dtype=np.uint16)
            near = both >= SHARED * either
            pairs += [(few[start + row], many[near[row].argmax()]) for row in np.flatnonzero(near.any(1))]
        return pairs
