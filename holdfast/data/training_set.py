"""What a stage learns from: questions, and for supervised learning their completions."""

from __future__ import annotations

from typing import NamedTuple

import pyarrow.parquet as pq

from holdfast.config.jobs import Train
from holdfast.config.methods import SFT
from holdfast.config.refs import DataRef, FileRef
from holdfast.data.shards import Question, read_questions
from holdfast.errors import UserError


class TrainingRow(NamedTuple):
    """A question to learn from, and for supervised learning the completion."""

    question: Question
    completion: str | None = None
    ended: bool = True
    """The completion has an end; a sample that reached the limit has none."""
    old: bool = False
    """Replayed: a prior benchmark's question, or an earlier target's."""


def train_rows(job: Train) -> list[TrainingRow]:
    """The rows of a stage: one for every training question, or one for every sample."""
    questions = read_questions(job.questions.path)
    if not isinstance(job.stage, SFT):
        return [TrainingRow(question) for question in questions]
    if job.samples is not None:
        return _sampled(questions, job.samples, job.data)
    if job.stage.source.kind == "answers":
        return [TrainingRow(question, question.reference) for question in questions]
    if job.stage.source.kind == "teacher":
        return [TrainingRow(question, question.teacher) for question in questions]
    raise UserError(f"samples: the source `{job.stage.source.kind}` needs a samples.parquet; name it in the job")


def replayed_shards(job: Train) -> tuple[FileRef, ...]:
    """The files of old questions that a stage replays."""
    replay = job.stage.replay
    if replay is None or not replay.share:
        return ()
    return (*(job.priors if "prior" in replay.of else ()), *(job.earlier if "targets" in replay.of else ()))


def replay_rows(job: Train) -> list[TrainingRow]:
    """Old questions that a stage learns from beside its own; an arm's first stage has no earlier targets' yet.

    Raises:
        UserError: none of the start's own answers is right.
    """
    replay = job.stage.replay
    if replay is None or not (shards := replayed_shards(job)):
        return []
    questions = [one for shard in shards for one in read_questions(shard.path, replay.questions)]
    if job.replayed is not None:
        return [row._replace(old=True) for row in _sampled(questions, job.replayed, job.data)]
    sampled = not isinstance(job.stage, SFT)
    return [TrainingRow(one, None if sampled else one.reference, old=True) for one in questions]


def _sampled(questions: list[Question], samples: FileRef, data: DataRef) -> list[TrainingRow]:
    by_id = {question.id: question for question in questions}
    table = pq.read_table(samples.path)
    unknown = set(table["id"].to_pylist()) - set(by_id)
    if unknown:
        raise UserError(
            f"{samples.path}: its sample of question {min(unknown)} belongs to other data than {data.path}; sample anew"
        )
    ended = table["ended"].to_pylist() if "ended" in table.column_names else [True] * len(table)
    given = zip(table["id"].to_pylist(), table["completion"].to_pylist(), ended, strict=True)
    return [TrainingRow(by_id[id_], completion, whole) for id_, completion, whole in given]
