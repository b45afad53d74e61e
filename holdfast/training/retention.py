"""How far each of a policy's completions is from what the model was before: what the `retention` reward is paid by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.config.jobs import Train
from holdfast.data.training_set import TrainingRow
from holdfast.evaluation.generate import Reader, score
from holdfast.models.load import load_model
from holdfast.models.precision import study_dtype
from holdfast.training.callback import evaluating


class LogRatios:
    """Mean over a completion's tokens of log p(token) − log p*(token), with p* the model as the stage found it.

    Both read the completion by the evaluation's function, without dropout, so that without a step the ratio is 0.
    """

    def __init__(self, trainer: Any, job: Train, processor: Any, rows: Sequence[TrainingRow]) -> None:
        self.trainer = trainer
        self.questions = {row.question.id: row.question for row in rows}
        self.reader = Reader(processor, trainer.args.per_device_train_batch_size)
        self.start = load_model(job.start, study_dtype(job), trainer.accelerator.device).requires_grad_(False)

    def __call__(self, names: Sequence[str], completions: Sequence[Sequence[int]]) -> list[float]:
        """Of completions' tokens, each to the question of that id."""
        own = list(dict.fromkeys(names))
        encoded = dict(zip(own, self.reader.encode([self.questions[name] for name in own]), strict=True))
        given = [encoded[name] for name in names], [list(ids) for ids in completions]
        with evaluating(self.trainer.model), self.trainer.accelerator.autocast():
            now = score(self.trainer.model, self.reader, *given)
            then = score(self.start, self.reader, *given)
        return [float((a.logprobs - b.logprobs).mean()) for a, b in zip(now, then, strict=True)]
