"""Intervals and verdicts that cover questions and replicates."""

from __future__ import annotations

from typing import Literal, NamedTuple

VerdictWord = Literal["better", "worse", "not distinguishable", "no verdict (one replicate)", "not comparable"]


class Estimate(NamedTuple):
    """A measure with its 95 % interval."""

    value: float
    low: float
    high: float
    replicates: int
    questions: int
    covers: str
    """"questions and replicates", "questions, replicates and seeds", or "questions only"."""
    left_out: int = 0
    """Values that are not finite."""


class Verdict(NamedTuple):
    """a against b."""

    a: str
    b: str
    measure: str
    at: str
    difference: Estimate
    p: float
    p_adjusted: float
    verdict: VerdictWord
    needed_replicates: int | None
    """Of each arm, that would make this difference significant if it stayed as it is; None where none would do."""
    needed_questions: int | None
