"""A teacher's completions in a file of the user's own: what a larger model wrote to the training questions.

JSONL or Parquet with `id`, as in target-train.parquet, and `completion`; several rows may answer one question.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from holdfast.data import tables
from holdfast.data.shards import Question
from holdfast.data.tables import TableRow, named
from holdfast.errors import UserError, brief


class Taught(NamedTuple):
    """A completion, where it stands, and the question that it answers."""

    question: Question
    completion: str
    place: str


def read(path: Path, questions: list[Question]) -> Iterator[Taught]:
    """All rows in the file's order. UserError, by its row, for an unknown question and for an empty completion."""
    tables.require_file("source.path", path)
    by_id = {question.id: question for question in questions}
    row = None
    for row in tables.read(path, ("id", "completion")):
        name = _text(row, "id")
        if name not in by_id:
            raise UserError(
                f"{row.place}: id {brief(name)!r} is none of the training questions, the first of which is "
                f"{brief(questions[0].id)}; answer those of target-train.parquet (holdfast data FILE makes it)."
            )
        yield Taught(by_id[name], _text(row, "completion"), row.place)
    if row is None:
        raise UserError(f"{named(path)}: holds no completion; add rows of id and completion.")


def _text(row: TableRow, column: str) -> str:
    try:
        found = tables.text(row.values.get(column))
    except ValueError as error:
        raise UserError(f"{row.place}: {column} {error}; write text, or remove the row.") from error
    if not found:
        raise UserError(f"{row.place}: {column} is missing or empty; fill it in, or remove the row.")
    return found
