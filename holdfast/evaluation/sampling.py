"""Completions that a later stage learns from: the base's own reasoning with the right answer, or an arm's rollouts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from holdfast import group
from holdfast.benchmarks.catalog import grade
from holdfast.benchmarks.grading.answer import formed
from holdfast.config.jobs import FromFile, Sample
from holdfast.config.methods import OwnRollouts, SelfReasoning
from holdfast.data.chat import rest, whole
from holdfast.data.shards import Question, read_questions
from holdfast.errors import UserError
from holdfast.evaluation.generate import Reader, Sampling, ends, generate
from holdfast.evaluation.teaching import graded
from holdfast.evaluation.vllm_decoder import decoder_of
from holdfast.journal import Journal
from holdfast.models.load import device, load_model, load_processor
from holdfast.models.precision import base_dtype

THOUGHT = re.compile(r"<think>(.*?)</think>", re.DOTALL)
Row = dict[str, Any]
CHUNK = 256
"""Prompts between two lines of progress; also what is held encoded at a time."""

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("completion", pa.string()),
        ("ended", pa.bool_()),
        ("sample", pa.int64()),
        ("model", pa.string()),
        ("step", pa.int64()),
        ("temperature", pa.float64()),
        ("seed", pa.int64()),
        ("score", pa.float64()),
        ("accuracy", pa.float64()),
        ("format", pa.float64()),
    ]
)


class Drawn(NamedTuple):
    """Sample number `sample` of a question."""

    question: Question
    sample: int
    completion: str
    ended: bool = True
    """It has an end token: the limit did not cut it off."""


def sample(job: Sample, out: Path, journal: Journal) -> dict[str, Any]:
    """Write samples.parquet, in the order of the questions; returns how many were drawn, kept and dropped.

    Raises:
        UserError: nothing was kept.
    """
    source = job.source
    if isinstance(source, FromFile):
        return _from_file(job, source, out)
    everything = isinstance(source, SelfReasoning) or source.keep == "all"
    limit = None if isinstance(source, SelfReasoning) else source.prompts
    shards = job.replayed or (job.questions,)
    questions = [question for shard in shards for question in read_questions(shard.path, limit)]
    processor = load_processor(job.model)
    decoder = decoder_of(job, processor)
    # Several processes share the chunks, or each chunk if there are fewer.
    together = -(-len(questions) // CHUNK) < group.size()
    reader = Reader(processor, job.batch_size, together, decoder)
    drawn = [row for chunk in _draw(job, questions, reader, journal) for row in chunk]
    rows = [row for row in drawn if row is not None and (everything or row["accuracy"] == 1.0)]
    if not rows:
        raise UserError(_nothing_kept(job, len(drawn)))
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), out / "samples.parquet")
    counts = {"drawn": len(drawn), "kept": len(rows), "dropped": len(drawn) - len(rows)}
    return counts | (decoder.notes() if decoder is not None else {})


def _from_file(job: Sample, source: FromFile, out: Path) -> dict[str, Any]:
    """Graded rows of a teacher's file; nobody is sampled."""
    kept, notes = graded(source.settings, source.file.path, read_questions(job.questions.path))
    rows = [
        {
            **dict.fromkeys(SCHEMA.names),
            "id": row.taught.question.id,
            "completion": row.taught.completion,
            "ended": True,
            "sample": number,
            "model": source.file.digest,
            "score": row.grade.score,
            "accuracy": float(row.grade.correct),
            "format": row.formed,
        }
        for number, row in enumerate(kept)
    ]
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), out / "samples.parquet")
    return notes


def with_answer(drawn: Drawn) -> str | None:
    """The reasoning of a completion with the right answer after it; None if there is no reasoning to read."""
    thoughts = THOUGHT.findall(drawn.completion)
    if len(thoughts) != 1 or not thoughts[0].strip():
        return None
    return f"<think> {thoughts[0].strip()} </think> <answer> {drawn.question.answer} </answer>"


def _said(drawn: Drawn) -> str | None:
    """The completion; None if it was cut off before it said anything, so that there is nothing to learn."""
    return drawn.completion if rest(drawn.question, drawn.completion) or drawn.ended else None


def _draw(job: Sample, questions: list[Question], reader: Reader, journal: Journal) -> list[list[Row | None]]:
    """By chunk, the row of every sample, or nothing where there is nothing to learn."""
    source = job.source
    assert not isinstance(source, FromFile)
    starts = range(0, len(questions), CHUNK)
    model = load_model(job.model, base_dtype(job.dtype, job.base), device(job.device))
    count = 1 if isinstance(source, SelfReasoning) else source.per_prompt
    stops = ends(model, reader)
    found: list[tuple[int, list[Row | None]]] = []
    for start in starts if reader.together else starts[group.number() :: group.size()]:
        chunk = questions[start : start + CHUNK]
        sampling = Sampling(job.limit, source.temperature, count, _seed(job.seed, start))
        written = generate(model, reader, reader.encode(chunk), sampling)
        drawn = [
            Drawn(question, number, whole(question, reader.text(ids)), ids[-1] in stops)
            for question, samples in zip(chunk, written, strict=True)
            for number, ids in enumerate(samples)
        ]
        found.append((start, [_row(job, one) for one in drawn]))
        journal.progress(start + len(chunk), len(questions))
    chunks = dict(group.of_all(found))
    return [chunks[start] for start in starts]


def _seed(seed: int, start: int) -> int:
    """Another stream for every chunk."""
    return (seed * 1_000_003 + start) % 2**63


def _row(job: Sample, drawn: Drawn) -> Row | None:
    question, source = drawn.question, job.source
    assert not isinstance(source, FromFile)
    completion = with_answer(drawn) if isinstance(source, SelfReasoning) else _said(drawn)
    if completion is None:
        return None
    verdict = grade(question.grader, completion, question.answer, question.accepted)
    return {
        "id": question.id,
        "completion": completion,
        "ended": drawn.ended or isinstance(source, SelfReasoning),
        "sample": drawn.sample,
        "model": job.model.digest,
        "step": job.model.step,
        "temperature": source.temperature,
        "seed": job.seed,
        "score": verdict.score,
        "accuracy": float(verdict.correct),
        "format": formed(question, completion),
    }


def _nothing_kept(job: Sample, drawn: int) -> str:
    source = job.source
    assert not isinstance(source, FromFile)
    if isinstance(source, SelfReasoning):
        return (
            f"source self: none of {drawn} samples of {job.model.path} holds reasoning in <think> tags; "
            "set target.thinking: true, raise evaluation.max_new_tokens, or use another source"
        )
    if isinstance(source, OwnRollouts) and not job.replayed:
        return (
            f"source own: none of {drawn} samples of the model that the stage starts from is right; let a stage before "
            "it learn something, raise per_prompt, or set keep: all"
        )
    if isinstance(source, OwnRollouts):
        return (
            f"replay.answers: none of {drawn} answers of {job.model.path} to old questions is right; "
            "set `replay.answers: truth`"
        )
    return (
        f"source rollouts: none of {drawn} samples of arm {source.arm} at step {job.model.step} is right; "
        "train that arm longer, raise per_prompt, or set keep: all"
    )
