"""A teacher's completions, graded row by row before anyone learns from them. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from holdfast.benchmarks.catalog import grade
from holdfast.benchmarks.grading.answer import Grade, formed
from holdfast.benchmarks.question import BOX
from holdfast.config.methods import TeacherFile
from holdfast.data.chat import goes_on
from holdfast.data.shards import Question
from holdfast.data.tables import named
from holdfast.data.teacher_file import Taught, read
from holdfast.errors import UserError


class Graded(NamedTuple):
    """A completion and what its question's grader says of it."""

    taught: Taught
    grade: Grade
    formed: bool | None
    """Reasoning and answer stand in their tags, as the question asks; None where it asks for no tags."""

    @property
    def asked_to_think(self) -> bool:
        return "<think>" in self.taught.question.prompt

    @property
    def bare(self) -> bool:
        """Without the reasoning that was asked for."""
        return self.asked_to_think and "<think>" not in self.taught.completion


def graded(source: TeacherFile, path: Path, questions: list[Question]) -> tuple[list[Graded], dict[str, Any]]:
    """The rows that are kept, and counts of all: drawn, kept, wrong, unparsed, unformed.

    Raises:
        UserError: a row cannot be used, none is kept, or none has reasoning where the target asks for it; one begins
            otherwise than the target's prefill.
    """
    rows = [_graded(taught) for taught in read(path, questions)]
    kept = [row for row in rows if source.keep == "all" or row.grade.correct]
    if not kept:
        grader = rows[0].taught.question.grader
        where = f"{BOX}}}" if grader == "boxed" else "<answer> </answer>"
        raise UserError(
            f"{named(path)}: none of its {len(rows)} completions is right, by the grader {grader!r} of the first; "
            f"answer in {where}, or set source.keep: all."
        )
    _require_reasoning(path, kept)
    _require_prefill(kept)
    unparsed = sum(row.grade.parsed is None for row in rows)
    return kept, {
        "drawn": len(rows),
        "kept": len(kept),
        "dropped": len(rows) - len(kept),
        "wrong": sum(not row.grade.correct for row in rows) - unparsed,
        "unparsed": unparsed,
        "unformed": sum(row.formed is False for row in kept),
        "told": [*_told(path, rows, len(kept)), *_told_of_kept(path, kept, len(questions))],
    }


def _graded(taught: Taught) -> Graded:
    question = taught.question
    found = grade(question.grader, taught.completion, question.answer, question.accepted)
    return Graded(taught, found, formed(question, taught.completion))


def _require_reasoning(path: Path, rows: Sequence[Graded]) -> None:
    asked = [row for row in rows if row.asked_to_think]
    if asked and all(row.bare for row in asked):
        raise UserError(
            f"{named(path)}: no completion has reasoning in <think> </think>, which the target asks for; add it, or "
            "set target.thinking: false."
        )


def _require_prefill(rows: Sequence[Graded]) -> None:
    for row in rows:
        if not goes_on(row.taught.question, row.taught.completion):
            raise UserError(
                f"{row.taught.place}: completion lacks the tag that target.prefill opens at its start; add it, or "
                "leave the tag out of target.prefill."
            )


def _told(path: Path, rows: Sequence[Graded], kept: int) -> list[str]:
    """A warning with the first row that was dropped."""
    wrong = [row for row in rows if not row.grade.correct]
    if not wrong:
        return []
    what = f"{len(wrong)} of {len(rows)} completions of {named(path)} are wrong or cannot be read"
    return [f"{what}, the first in {_row(wrong[0])}; {'they are left out' if kept < len(rows) else 'they are kept'}."]


def _told_of_kept(path: Path, kept: Sequence[Graded], questions: int) -> list[str]:
    """Warnings on the form of what is learned from, each with its first row, and on questions without a completion."""
    bare = [row for row in kept if row.bare]
    odd = [row for row in kept if row.formed is False and not row.bare]
    told = [
        f"{len(rows)} of {len(kept)} completions to learn from in {named(path)} {what}, the first in {_row(rows[0])}."
        for rows, what in (
            (bare, "lack the reasoning in <think> </think> that the target asks for"),
            (odd, "lack a tag that the target asks for, or have text outside of them"),
        )
        if rows
    ]
    answered = len({row.taught.question.id for row in kept})
    if answered < questions:
        told.append(f"{named(path)} teaches {answered} of the {questions} training questions; the others are left out.")
    return told


def _row(row: Graded) -> str:
    return row.taught.place.rpartition(", ")[2]
