"""What the benchmarks of a study ask, and which studies therefore cannot be compared."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from holdfast.analysis.settings import Place
from holdfast.config.refs import FileRef, content_key
from holdfast.config.results import Evaluated, FinishedStudy
from holdfast.errors import UserError


class Questions(NamedTuple):
    """A benchmark's questions as the base was asked them."""

    keys: pa.Table
    """split and id, in the order of the base's file."""
    order: np.ndarray
    """Rows of the file, test questions first."""
    ids: np.ndarray
    """In that order, as are `images`."""
    images: np.ndarray
    graders: np.ndarray
    """A file of one's own may have another one for every question."""
    tested: int
    """How many test questions."""
    grading: dict[str, str]
    """The grader of each test question."""
    digest: str
    """Of test questions' ids, images and answers: another seed draws others under the same ids."""


def of_base(study: FinishedStudy) -> list[Evaluated]:
    """Records of its base, without which no arm can be measured."""
    return [one for one in study.evaluated if one.kind == "records" and one.arm is None]


def read_questions(study: FinishedStudy) -> dict[str, Questions]:
    """By benchmark, what the base of a study was asked."""
    return {one.benchmark: _read(one.file) for one in of_base(study)}


def _read(file: FileRef) -> Questions:
    table = pq.ParquetFile(file.path).read(["split", "id", "image_id", "answer", "grader"])
    split, ids, images, graders = (table[name].to_numpy() for name in ("split", "id", "image_id", "grader"))
    order = np.argsort(split == "validation", kind="stable")
    tested = order[: int((split == "test").sum())]
    answers = table["answer"].to_numpy()
    asked = [[str(column[row]) for column in (ids, images, answers)] for row in tested]
    return Questions(
        keys=table.select(["split", "id"]),
        order=order,
        ids=ids[order],
        images=images[order],
        graders=graders[order],
        tested=len(tested),
        grading=dict(zip(ids[tested], graders[tested], strict=True)),
        digest=content_key(sorted(asked)),
    )


def refuse_incomparable(
    experiments: Sequence[str], where: Sequence[Place], asked: Sequence[dict[str, Questions]]
) -> None:
    """Two studies' benchmark of one name must have the same grader and questions.

    Other questions are let pass where a sweep draws them anew, which is then part of the variance, or varies them.

    Raises:
        UserError: they do not.
    """
    everything = zip(experiments, where, asked, strict=True)
    for (one, a, first), (other, b, second) in combinations(everything, 2):
        for name in [name for name in first if name in second and one != other]:
            mine, others = first[name], second[name]
            names = f"{a.study} and {b.study} cannot be compared"
            graded, otherwise = (", ".join(sorted(set(one.graders))) for one in (mine, others))
            same = mine.digest == others.digest
            if graded != otherwise or (same and mine.grading != others.grading):
                raise UserError(f"{name}: {names}: answers are graded by {graded!r} and by {otherwise!r}")
            if not (same or a.draw or b.draw):
                raise UserError(f"{name}: {names}: they were asked different questions")
