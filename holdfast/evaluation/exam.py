"""All that is asked of a model at one step: the target's test puzzles, every prior benchmark, drift, pass@k."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from holdfast.artifacts import DataRef
from holdfast.benchmarks.catalog import grade
from holdfast.config import Evaluation
from holdfast.data.shards import read_questions
from holdfast.evaluation import drift, forgetting
from holdfast.evaluation.generate import Reader, Sampling, answer, generate
from holdfast.evaluation.records import Record, metrics, write_records


class Exam:
    """The questions, encoded once; `sit` asks a model all of them."""

    def __init__(self, data: DataRef, evaluation: Evaluation, processor: Any) -> None:
        self.evaluation = evaluation
        self.reader = Reader(processor, evaluation.batch_size)
        self.target = read_questions(data.path / "target-test.parquet")
        priors = [read_questions(path) for path in sorted(data.path.glob("prior-*.parquet"))]
        self.questions = [*self.target, *(question for shard in priors for question in shard)]
        self.prompts = self.reader.encode(self.questions)
        self.references = [self.reader.completion_ids(question.reference) for question in self.questions]

    def sit(self, model: Any, path: Path) -> dict[str, float]:
        """Ask everything, write one record a question to `path`, and return the metrics."""
        records = list(self._records(model))
        write_records(path, records)
        return metrics(records)

    def _records(self, model: Any) -> Iterator[Record]:
        limit = self.evaluation.max_new_tokens
        written, scored = answer(model, self.reader, self.prompts, self.references, limit)
        for index, question in enumerate(self.questions):
            completion = self.reader.text(written[index])
            verdict = grade(question.grader, completion, question.answer, question.accepted)
            yield Record(
                benchmark=question.benchmark,
                role="target" if index < len(self.target) else "prior",
                id=question.id,
                image_id=question.image_id,
                prompt=question.prompt,
                completion=completion,
                parsed=verdict.parsed,
                answer=question.answer,
                correct=verdict.correct,
                score=verdict.score,
                logprob=float(scored[index].logprobs.double().mean()),
                tokens=len(written[index]),
                grader=question.grader,
            )

    def sample_references(self, model: Any, seed: int) -> list[drift.Reference]:
        """The base's own samples on the first target prompts."""
        count = self.evaluation.drift_prompts
        sampling = Sampling(self.evaluation.max_new_tokens, self.evaluation.temperature, seed=seed)
        return drift.sample_base(model, self.reader, self.target[:count], self.prompts[:count], sampling)

    def drift(self, model: Any, references: list[drift.Reference]) -> float:
        """KL(base ‖ now) per token on the base's samples."""
        places = {question.id: index for index, question in enumerate(self.target)}
        prompts = [self.prompts[places[reference.id]] for reference in references]
        return drift.drift(model, self.reader, prompts, references, self.evaluation.temperature)

    def pass_at(self, model: Any, seed: int) -> dict[str, float]:
        """The chance that one of k samples of a target question is right, for the k that were asked for."""
        if not self.evaluation.pass_at:
            return {}
        count = max(self.evaluation.pass_at)
        sampling = Sampling(self.evaluation.max_new_tokens, self.evaluation.temperature, count, seed)
        written = generate(model, self.reader, self.prompts[: len(self.target)], sampling)
        right = [
            sum(
                grade(question.grader, self.reader.text(ids), question.answer, question.accepted).correct
                for ids in samples
            )
            for question, samples in zip(self.target, written, strict=True)
        ]
        return {
            f"target/{self.target[0].benchmark}/pass_at_{k}": sum(forgetting.pass_at(k, count, n) for n in right)
            / len(right)
            for k in self.evaluation.pass_at
        }
