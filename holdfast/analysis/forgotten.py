"""The forgetting ledger: question by question, what became of what the base model knew.

For every benchmark: forgetting = lost, unreadable + lost, wrong − gained, exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from holdfast.analysis.records import Graded


class Entry(NamedTuple):
    """Counts of the questions of one benchmark."""

    questions: int
    known: int
    """The base was right."""
    unparsed: int
    """The base was right, and now no answer can be read."""
    wrong: int
    """The base was right, and now the answer is another."""
    gained: int
    """The base was not right, and now it is."""

    @property
    def forgetting(self) -> float:
        return (self.unparsed + self.wrong - self.gained) / self.questions


class Flip(NamedTuple):
    """A question that the base answered right and a trained model does not."""

    before: Graded
    after: Graded


def pairs(base: Sequence[Graded], now: Sequence[Graded]) -> list[tuple[Graded, Graded]]:
    """The same question before and after; both evaluations must have asked the same ones."""
    after = {row.key: row for row in now}
    if after.keys() != {row.key for row in base}:
        raise ValueError("two evaluations asked different questions and cannot be paired")
    return [(row, after[row.key]) for row in base]


def ledger(base: Sequence[Graded], now: Sequence[Graded]) -> dict[str, Entry]:
    """One entry a prior benchmark."""
    counts: dict[str, list[int]] = {}
    for before, after in pairs(base, now):
        if before.role != "prior":
            continue
        entry = counts.setdefault(before.benchmark, [0, 0, 0, 0, 0])
        lost = before.correct and not after.correct
        facts = (True, before.correct, lost and after.parsed is None, lost and after.parsed is not None)
        for index, fact in enumerate((*facts, after.correct and not before.correct)):
            entry[index] += fact
    return {benchmark: Entry(*entry) for benchmark, entry in counts.items()}


def flips(base: Sequence[Graded], now: Sequence[Graded]) -> list[Flip]:
    """Prior questions that went from right to not right."""
    return [
        Flip(before, after)
        for before, after in pairs(base, now)
        if before.role == "prior" and before.correct and not after.correct
    ]
