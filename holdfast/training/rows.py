"""What a stage learns from, in an order that depends on nothing but the seed.

The order is laid out in advance, one shuffled pass over the questions after another, as long as the training is: TRL
walks it from front to back, so a resumed training finds its place by counting, and every method sees the same prompts.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from datasets import Dataset

from holdfast.artifacts import DataRef, FileRef
from holdfast.data.conversations import messages, pictures
from holdfast.data.shards import Question, read_questions
from holdfast.errors import UserError
from holdfast.jobs import Train


class Row(NamedTuple):
    """A question to learn from, and for supervised learning the completion."""

    question: Question
    completion: str | None = None


def train_rows(job: Train) -> list[Row]:
    """The rows of a stage: one for every training question, or one for every sample."""
    questions = read_questions(job.data.path / "target-train.parquet")
    if job.stage.method == "grpo":
        return [Row(question) for question in questions]
    if job.stage.source.kind == "answers":
        return [Row(question, question.reference) for question in questions]
    if job.stage.source.kind == "teacher":
        return [Row(question, question.teacher) for question in questions]
    if job.samples is None:
        raise UserError(f"samples: the source `{job.stage.source.kind}` needs a samples.parquet; name it in the job")
    return _sampled(questions, job.samples, job.data)


def _sampled(questions: list[Question], samples: FileRef, data: DataRef) -> list[Row]:
    by_id = {question.id: question for question in questions}
    table = pq.read_table(samples.path, columns=["id", "completion"])
    unknown = set(table["id"].to_pylist()) - set(by_id)
    if unknown:
        raise UserError(
            f"{samples.path}: its sample of question {min(unknown)} belongs to other data than {data.path}; sample anew"
        )
    return [Row(by_id[row["id"]], row["completion"]) for row in table.to_pylist()]


def order(rows: int, length: int, seed: int) -> list[int]:
    """`length` row numbers: seeded permutations, one after another."""
    rng = np.random.default_rng(seed)
    passes = [rng.permutation(rows) for _ in range(-(-length // rows))]
    return np.concatenate(passes)[:length].tolist()


def dataset(rows: list[Row], places: list[int]) -> Dataset:
    """Conversations as TRL takes them; images are decoded when they are asked for and not kept."""

    def look_up(batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        wanted = {place: conversation(rows[place]) for place in batch["row"]}
        found = [wanted[place] for place in batch["row"]]
        return {name: [row[name] for row in found] for name in found[0]}

    return Dataset.from_dict({"row": places}).with_transform(look_up)


def conversation(row: Row) -> dict[str, Any]:
    """A row with the columns that TRL and the rewards read."""
    question = row.question
    columns = {
        "id": question.id,
        "prompt": messages(question),
        "images": pictures(question),
        "answer": question.answer,
        "grader": question.grader,
        "thinking": "<think>" in question.prompt,
    }
    if row.completion is not None:
        columns["completion"] = [{"role": "assistant", "content": row.completion}]
    return columns
