"""A teacher's completions, graded row by row before anyone learns from them. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from holdfast.benchmarks.catalog import grade
from holdfast.benchmarks.grading.answer import Grade, formatted
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
    formed: bool
    """Reasoning and answer stand in their tags, as the question asks."""


def graded(source: TeacherFile, path: Path, questions: list[Question]) -> tuple[list[Graded], dict[str, Any]]:
    """The rows that are kept, and counts of all: drawn, kept, wrong, unparsed, unformed.

    Raises:
        UserError: a row cannot be used, none is kept, or none has reasoning where the target asks for it; one begins
            otherwise than the target's prefill.
    """
    rows = [_graded(taught) for taught in read(path, questions)]
    kept = [row for row in rows if source.keep == "all" or row.grade.correct]
    if not kept:
        raise UserError(
            f"{named(path)}: none of its {len(rows)} completions is right, by the grader "
            f"{rows[0].taught.question.grader!r} of the first; answer in <answer> </answer>, or set source.keep: all."
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
        "unformed": sum(not row.formed for row in kept),
        "told": _told(path, rows, len(kept)),
    }


def _graded(taught: Taught) -> Graded:
    question = taught.question
    found = grade(question.grader, taught.completion, question.answer, question.accepted)
    return Graded(taught, found, formatted(taught.completion, "<think>" in question.prompt))


def _require_reasoning(path: Path, rows: Sequence[Graded]) -> None:
    asked = [row for row in rows if "<think>" in row.taught.question.prompt]
    if asked and not any("<think>" in row.taught.completion for row in asked):
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
    first = wrong[0].taught.place.rpartition(", ")[2]
    return [f"{what}, the first in {first}; {'they are left out' if kept < len(rows) else 'they are kept'}."]
