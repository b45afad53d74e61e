"""Whether a training still computes with numbers: how many of its steps did not, and when it has to stop."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from holdfast import group
from holdfast.errors import UserError
from holdfast.training.sharded import own_part

STAYS = 3
"""Logged losses in a row that are not finite: a single batch that overflows is forgiven, as loss scaling does."""
SAMPLING = "probability tensor contains"
"""How torch begins to say that it cannot sample from logits that are not finite."""


class NonFiniteWatch:
    """Watches the loss of every step and the weights after it."""

    def __init__(self) -> None:
        self.steps = 0
        """Optimizer steps whose loss was not finite, those before an interruption included."""
        self.in_a_row = 0
        self.broken: list[Tensor] = []
        self.trainer: Any = None

    def watch(self, trainer: Any) -> None:
        """See every loss that the trainer computes."""
        self.trainer = trainer
        training_step = trainer.training_step

        def watched(*given: Any, **named: Any) -> Tensor:
            loss = training_step(*given, **named)
            self.broken.append(~loss.detach().isfinite())
            return loss

        trainer.training_step = watched

    def after_step(self, model: Any) -> bool:
        """Count the step if its loss was not finite; whether all weights that learn still are."""
        broken = any(map(bool, self.broken))
        self.broken.clear()
        learning = [own_part(parameter) for parameter in model.parameters() if parameter.requires_grad]
        sound = bool(torch.stack([values.isfinite().all() for values in learning]).all())
        found = group.of_all([(broken, sound)])
        self.steps += any(broken for broken, _ in found)
        return all(sound for _, sound in found)

    def counted(self) -> dict[str, float]:
        """The count, once there is one."""
        return {"train/non_finite_steps": float(self.steps)} if self.steps else {}

    def logged(self, metrics: dict[str, float]) -> bool:
        """As `take`; and let the next logged loss be the mean of the steps that follow.

        transformers takes the sum that it logged away from itself, which leaves NaN of what is not finite, for ever.
        """
        self.trainer._tr_loss.zero_()
        return self.take(metrics)

    def take(self, metrics: dict[str, float]) -> bool:
        """Follow what is logged, again after an interruption; false once the loss stays without a finite value."""
        self.steps = max(self.steps, int(metrics.get("train/non_finite_steps", 0)))
        if "train/loss" in metrics:
            self.in_a_row = 0 if math.isfinite(metrics["train/loss"]) else self.in_a_row + 1
        return self.in_a_row < STAYS

    def failure(self, what: str) -> UserError:
        """Why the training was stopped, and what to do."""
        return UserError(
            f"training was stopped: {what}; lower trainer.learning_rate (it is {self.trainer.args.learning_rate:g}) or "
            "trainer.max_grad_norm, add warmup_steps, or, with model.dtype float16, use bfloat16 or float32"
        )
