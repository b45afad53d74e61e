"""Questions of some benchmarks, encoded once, and what a model answers to them: one record a question."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from holdfast.benchmarks.catalog import grade, grade_leniently, judge
from holdfast.config.jobs import PassAt, Shards
from holdfast.data.chat import rest, whole
from holdfast.data.shards import Question, read_questions
from holdfast.evaluation.generate import Reader, Sampling, answer, ends, generate
from holdfast.evaluation.records import Record, Split


class Asked(NamedTuple):
    """A question with what it is asked for."""

    benchmark: Shards
    split: Split
    question: Question


class Evaluator:
    """Asks a model every question of the given splits."""

    def __init__(self, questions: Sequence[Asked], reader: Reader, limit: int) -> None:
        self.asked = list(questions)
        self.limit = limit
        self.reader = reader
        self.prompts = self.reader.encode([one.question for one in self.asked])
        self.references = [self.reader.completion_ids(rest(one.question, one.question.reference)) for one in self.asked]

    def evaluate(self, model: Any, batch_size: int | None = None) -> Iterator[Record]:
        """One record a question, in order; greedy completions of `limit` tokens at most."""
        reader = self.reader.by(batch_size) if batch_size else self.reader
        written, scored = answer(model, reader, self.prompts, self.references, self.limit)
        stops = ends(model, reader)
        for index, (benchmark, split, question) in enumerate(self.asked):
            completion = whole(question, reader.text(written[index]))
            verdict = judge(question, completion)
            logprob = float(scored[index].logprobs.double().mean()) if question.reference else math.nan
            yield Record(
                benchmark=benchmark.name,
                role=benchmark.role,
                split=split,
                id=question.id,
                image_id=question.image_id,
                prompt=question.prompt,
                completion=completion,
                parsed=verdict.parsed,
                answer=question.answer,
                correct=verdict.correct,
                score=verdict.score,
                logprob=logprob,
                tokens=len(written[index]),
                grader=question.grader,
                strict=verdict.strict,
                authors=verdict.authors,
                group=verdict.group,
                cut=written[index][-1] not in stops,
                lenient=_lenient(question, completion) if benchmark.role == "target" else None,
            )


def asked(benchmarks: Sequence[Shards], splits: Sequence[Split], validation: int) -> list[Asked]:
    """The questions of some benchmarks; of their validation questions the first so many."""
    return [
        Asked(benchmark, split, question)
        for benchmark in benchmarks
        for split in splits
        for question in read_questions(getattr(benchmark, split).path, validation if split == "validation" else None)
    ]


def right_of(model: Any, reader: Reader, job: PassAt, limit: int, seed: int) -> list[tuple[str, int]]:
    """Of the most samples that any k of pass@k asks for, how many are right, for every target question."""
    questions = read_questions(job.target.test.path)
    sampling = Sampling(limit, job.temperature, max(job.k), seed)
    written = generate(model, reader, reader.encode(questions), sampling)
    return [
        (question.id, sum(_right(question, reader.text(ids)) for ids in samples))
        for question, samples in zip(questions, written, strict=True)
    ]


def _lenient(question: Question, completion: str) -> float:
    return grade_leniently(question.grader, completion, question.answer, question.accepted).score


def _right(question: Question, written: str) -> bool:
    return grade(question.grader, whole(question, written), question.answer, question.accepted).correct
