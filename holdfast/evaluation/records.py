"""One row for every question that was asked, and the metrics that are means over rows. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from holdfast.benchmarks.public import questions as public_questions
from holdfast.benchmarks.public.benchmarks import MODULES as PUBLIC

Split = Literal["test", "validation"]


class Record(NamedTuple):
    """A question, what the model said, and the verdict."""

    benchmark: str
    role: Literal["target", "prior"]
    split: Split
    id: str
    image_id: str
    prompt: str
    completion: str
    parsed: str | None
    answer: str
    correct: bool
    score: float
    logprob: float
    """Mean per token of the reference completion."""
    tokens: int
    """Length of the completion, its end included."""
    grader: str = ""
    strict: bool | None = None
    """Right in the form that was asked for, where a question tells that from being right."""
    authors: float | None = None
    """The score by the rules of a public benchmark's authors."""
    group: str | None = None
    """What their metric is summed up by."""
    cut: bool | None = None
    """The limit cut the answer off: it has no end. None in old records, which do not say."""
    lenient: float | None = None
    """The score of a target's answer when it is read leniently; `score` and `correct` are strict."""


SCHEMA = pa.schema(
    [
        ("benchmark", pa.string()),
        ("role", pa.string()),
        ("split", pa.string()),
        ("id", pa.string()),
        ("image_id", pa.string()),
        ("prompt", pa.string()),
        ("completion", pa.string()),
        ("parsed", pa.string()),
        ("answer", pa.string()),
        ("correct", pa.bool_()),
        ("score", pa.float64()),
        ("logprob", pa.float64()),
        ("tokens", pa.int64()),
        ("grader", pa.string()),
        ("strict", pa.bool_()),
        ("authors", pa.float64()),
        ("group", pa.string()),
        ("cut", pa.bool_()),
        ("lenient", pa.float64()),
    ]
)


def write_records(path: Path, records: Sequence[Record]) -> None:
    """Write an evaluation's rows, complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    pq.write_table(pa.Table.from_pylist([record._asdict() for record in records], SCHEMA), partial)
    partial.replace(path)


def read_records(path: Path) -> list[Record]:
    """The rows of an evaluation."""
    return [Record(**row) for row in pq.read_table(path).to_pylist()]


def measured(records: Sequence[Record]) -> dict[str, float]:
    """The metrics of test questions, and below `validation/` those of validation questions."""
    tested = metrics([record for record in records if record.split == "test"])
    validated = metrics([record for record in records if record.split == "validation"])
    return tested | {f"validation/{name}": value for name, value in validated.items()}


def metrics(records: Sequence[Record]) -> dict[str, float]:
    """Means by benchmark, in the names of the contract; a question that could not be parsed counts as wrong.

    A prior benchmark has a score beside its accuracy where that is a share, `strict` where the form that was asked for
    counts apart, and a public one its authors' metrics. A target has `lenient` beside its score, and all have `cut`,
    the share of answers that the limit cut off, where the records say so.
    """
    named: dict[str, float] = {}
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record.role, record.benchmark), []).append(record)
    for (role, benchmark), rows in groups.items():
        place = f"{role}/{benchmark}"
        named[f"{place}/accuracy"] = _mean([row.correct for row in rows])
        if role == "target" or any(row.grader == "vqa" or row.grader in PUBLIC for row in rows):
            named[f"{place}/score"] = _mean([row.score for row in rows])
        if role == "prior" and not any(math.isnan(row.logprob) for row in rows):
            named[f"{place}/logprob"] = _mean([row.logprob for row in rows])
        for name in ("strict", "lenient", "cut"):
            known = [value for row in rows if (value := getattr(row, name)) is not None]
            if known:
                named[f"{place}/{name}"] = _mean(known)
        if rows[0].grader in PUBLIC:
            found = public_questions.metrics(rows[0].grader, rows)
            named |= {f"{place}/{name}": value for name, value in found.items()}
        named[f"{place}/unparsed"] = _mean([row.parsed is None for row in rows])
    priors = [named[f"prior/{benchmark}/accuracy"] for role, benchmark in groups if role == "prior"]
    if priors:
        named["prior/mean/accuracy"] = _mean(priors)
    return named


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
