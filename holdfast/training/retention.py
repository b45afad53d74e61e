"""How far each of a policy's completions is from what the model was before: what the `retention` reward is paid by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from holdfast.config.jobs import Train
from holdfast.data.training_set import TrainingRow
from holdfast.models.encode import Encoded, encode, teacher_forced
from holdfast.models.load import load_model
from holdfast.models.precision import study_dtype
from holdfast.training.callback import evaluating
from holdfast.training.penalties import completion_logits
from holdfast.training.sft import labelled


class LogRatios:
    """Mean over a completion's tokens of log p(token) − log p*(token), with p* the model as the stage found it.

    Both read the completion by one function, without dropout, so that without a step the ratio is 0.
    """

    def __init__(self, trainer: Any, job: Train, processor: Any, rows: Sequence[TrainingRow]) -> None:
        self.trainer, self.processor = trainer, processor
        self.questions = {row.question.id: row.question for row in rows}
        self.start = load_model(job.start, study_dtype(job), trainer.accelerator.device).requires_grad_(False)

    @torch.no_grad()
    def __call__(self, names: Sequence[str], completions: Sequence[Sequence[int]]) -> list[float]:
        """Of completions' tokens, each to the question of that id."""
        own = list(dict.fromkeys(names))
        encoded = dict(zip(own, encode(self.processor, [self.questions[name] for name in own]), strict=True))
        said = [list(ids) for ids in completions]
        size = self.trainer.args.per_device_train_batch_size
        found: list[float] = []
        with evaluating(self.trainer.model), self.trainer.accelerator.autocast():
            for first in range(0, len(said), size):
                part = slice(first, first + size)
                found += self._ratios([encoded[name] for name in names[part]], said[part])
        return found

    def _ratios(self, prompts: list[Encoded], completions: list[list[int]]) -> list[float]:
        pad = self.processor.tokenizer.pad_token_id
        batch = labelled(teacher_forced(prompts, completions, pad, self.trainer.accelerator.device))
        tokens = torch.tensor([token for ids in completions for token in ids], device=batch["labels"].device)
        now, then = (_log_chances(completion_logits(one, batch), tokens) for one in (self.trainer.model, self.start))
        return [float(part.mean()) for part in (now - then).split([len(ids) for ids in completions])]


def _log_chances(logits: Tensor, tokens: Tensor) -> Tensor:
    return logits.float().log_softmax(-1).gather(1, tokens[:, None])[:, 0]
