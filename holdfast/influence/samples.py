"""What influence is measured on: training samples, and the questions of every benchmark, as tensors."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from holdfast.config.jobs import Train
from holdfast.config.measurement import Influence
from holdfast.data.chat import rest, whole
from holdfast.data.shards import Question, read_questions, shard_paths, target_shards
from holdfast.data.training_set import train_rows
from holdfast.errors import UserError
from holdfast.models.encode import Encoded, TeacherForced, completion_ids, encode, teacher_forced
from holdfast.models.load import load_processor


class Sample(NamedTuple):
    """A prompt with a completion, and how much a training step makes of it."""

    id: str
    prompt: str
    """The question's id; samples of one prompt belong together."""
    text: str
    encoded: Encoded
    completion: list[int]
    weight: float = 1.0


class Completion(NamedTuple):
    """A completion of a question, with its weight."""

    question: Question
    text: str
    weight: float = 1.0
    ended: bool = True
    """It has an end token; one that was cut off has none."""


Rollouts = Callable[[Any, list[Question], int, int], list[tuple[Question, list[int], float]]]
"""Of a model, for some questions, about so many, at a step of its training: each one's question, tokens as sampled, and
advantage in its group."""


class SampleEncoder:
    """Makes samples of questions and completions with one processor, and batches of samples."""

    def __init__(self, processor: Any, batch_size: int, batch_tokens: int | None = None) -> None:
        """A batch has `batch_size` samples and, padding included, `batch_tokens` tokens at most, if not one sample."""
        self.processor, self.batch_size, self.batch_tokens = processor, batch_size, batch_tokens

    def samples(self, completions: Sequence[tuple[Question, str, float]] | Sequence[Completion]) -> list[Sample]:
        """One sample for every (question, completion, weight)."""
        tokenizer = self.processor.tokenizer
        return self._encoded(
            [
                (one.question, one.text, completion_ids(tokenizer, rest(one.question, one.text), one.ended), one.weight)
                for one in itertools.starmap(Completion, completions)
            ]
        )

    def rollout_samples(self, rollouts: Sequence[tuple[Question, list[int], float]]) -> list[Sample]:
        """One sample for every (question, tokens, weight): a completion that was cut off gets no end."""
        tokenizer = self.processor.tokenizer
        return self._encoded(
            [
                (question, whole(question, tokenizer.decode(ids, skip_special_tokens=True)), ids, weight)
                for question, ids, weight in rollouts
            ]
        )

    def _encoded(self, completions: Sequence[tuple[Question, str, list[int], float]]) -> list[Sample]:
        encoded = encode(self.processor, [question for question, *_ in completions])
        return [
            Sample(f"{question.id}/{index}", question.id, text, row, ids, weight)
            for index, ((question, text, ids, weight), row) in enumerate(zip(completions, encoded, strict=True))
        ]

    def batches(self, samples: Sequence[Sample], device: torch.device) -> Iterator[TeacherForced]:
        """In order, so that results can be laid beside the samples."""
        pad = self.processor.tokenizer.pad_token_id
        for part in self.parts(samples):
            yield teacher_forced([s.encoded for s in part], [s.completion for s in part], pad, device)

    def parts(self, samples: Sequence[Sample]) -> Iterator[Sequence[Sample]]:
        """The samples of each batch, in order."""
        start = prompt = completion = 0
        for place, sample in enumerate(samples):
            prompt = max(prompt, len(sample.encoded["input_ids"]))
            completion = max(completion, len(sample.completion))
            rows = place - start + 1
            wide = self.batch_tokens is not None and rows * (prompt + completion) > self.batch_tokens
            if rows > self.batch_size or (wide and rows > 1):
                yield samples[start:place]
                start, prompt, completion = place, len(sample.encoded["input_ids"]), len(sample.completion)
        if len(samples) > start:
            yield samples[start:]


def sample_encoder(train: Train, settings: Influence) -> SampleEncoder:
    """With the processor of a stage, and the batches of an analysis."""
    return SampleEncoder(load_processor(train.start), settings.batch_size, settings.batch_tokens)


def benchmark_questions(data: Path, count: int) -> dict[str, list[tuple[Question, str, float]]]:
    """The first validation questions of every target and of every prior benchmark, with their reference completions.

    Test questions measure what was forgotten, so they may not also choose samples or explain.

    Raises:
        UserError: a benchmark has fewer than two questions, so no two halves can be made of it.
    """
    found = {}
    for path in shard_paths(data, "validation"):
        questions = read_questions(path, count)
        if len(questions) < 2:
            raise UserError(f"influence: {path} holds fewer than two questions, too few for two halves; ask more")
        found[questions[0].benchmark] = [(question, question.reference, 1.0) for question in questions]
    return found


def target_benchmarks(data: Path) -> set[str]:
    """All that a study teaches, by its benchmarks' names; every other benchmark is the prior's."""
    return {read_questions(path, 1)[0].benchmark for path in target_shards(data, "validation")}


def learned_benchmark(job: Train) -> str:
    """The target that a stage learns, by its benchmark's name."""
    return read_questions(job.questions.path, 1)[0].benchmark


def supervised_completions(job: Train, count: int | None) -> list[Completion]:
    """The first completions that a supervised stage learns from, one a prompt; without a count, all of them."""
    rows = [Completion(row.question, row.completion or "", ended=row.ended) for row in train_rows(job)]
    if count is None:
        return rows
    first: dict[str, Completion] = {}
    for row in rows:
        first.setdefault(row.question.id, row)
    return list(first.values())[:count]
