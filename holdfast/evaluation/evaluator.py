"""All that is asked of a model at one step: test and validation questions of every benchmark, drift, pass@k."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from holdfast.benchmarks.catalog import grade
from holdfast.config.measurement import Evaluation
from holdfast.config.refs import DataRef
from holdfast.data.shards import read_questions, shard_paths
from holdfast.evaluation import drift, forgetting
from holdfast.evaluation.generate import Reader, Sampling, answer, generate
from holdfast.evaluation.records import Record, metrics, write_records


class Evaluator:
    """The questions, encoded once; `sit` asks a model all of them."""

    def __init__(self, data: DataRef, evaluation: Evaluation, processor: Any) -> None:
        self.evaluation = evaluation
        self.reader = Reader(processor, evaluation.batch_size)
        self.target, *priors = [read_questions(path) for path in shard_paths(data.path, "test")]
        chosen_by = [read_questions(path, evaluation.validation) for path in shard_paths(data.path, "validation")]
        tested = [*self.target, *(question for shard in priors for question in shard)]
        self.questions = [*tested, *(question for shard in chosen_by for question in shard)]
        self.validation = len(tested)
        """Place of the first validation question."""
        self.benchmark = self.target[0].benchmark
        self.prompts = self.reader.encode(self.questions)
        self.references = [self.reader.completion_ids(question.reference) for question in self.questions]

    def evaluate(self, model: Any, path: Path) -> dict[str, float]:
        """Ask everything, write one record a test question to `path`, and return the metrics.

        Those of validation questions stand below `validation/`.
        """
        records = list(self._records(model))
        tested, validated = records[: self.validation], records[self.validation :]
        write_records(path, tested)
        return metrics(tested) | {f"validation/{name}": value for name, value in metrics(validated).items()}

    def _records(self, model: Any) -> Iterator[Record]:
        limit = self.evaluation.max_new_tokens
        written, scored = answer(model, self.reader, self.prompts, self.references, limit)
        for index, question in enumerate(self.questions):
            completion = self.reader.text(written[index])
            verdict = grade(question.grader, completion, question.answer, question.accepted)
            yield Record(
                benchmark=question.benchmark,
                role="target" if question.benchmark == self.benchmark else "prior",
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
        count = min(self.evaluation.drift_prompts, len(self.target))
        sampling = Sampling(self.evaluation.max_new_tokens, self.evaluation.temperature, seed=seed)
        return drift.sample_base(model, self.reader, self.target[:count], self.prompts[:count], sampling)

    def drift(self, models: drift.Pair, references: list[drift.Reference], path: Path) -> float:
        """Mean over prompts of KL(base ‖ now) per token; each prompt's goes to `path`."""
        places = {question.id: index for index, question in enumerate(self.target)}
        prompts = [self.prompts[places[reference.id]] for reference in references]
        temperature = self.evaluation.temperature
        if self.evaluation.drift == "exact":
            found = drift.drift(models, self.reader, prompts, references, temperature)
        else:
            found = drift.sampled_drift(models.now, self.reader, prompts, references, temperature)
        drift.write_drift(path, references, found)
        return sum(found) / len(found)

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
            f"target/{self.benchmark}/pass_at_{k}": sum(forgetting.pass_at(k, count, n) for n in right) / len(right)
            for k in self.evaluation.pass_at
        }
