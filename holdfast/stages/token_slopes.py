"""What a loss makes of each token: its slope at the token's log-probability, taken down while a trainer trains."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from trl import GRPOTrainer, SFTTrainer

from holdfast import group
from holdfast.influence.replay.steps import Taught
from holdfast.training.sft import IGNORED

Take = Callable[[Taught], None]


def watch_supervised(trainer: SFTTrainer, rows: Sequence[tuple[int, str]], take: Take) -> None:
    """Take down every sample; `rows` are the numbers and questions in the order in which this process takes them."""
    args: Any = trainer.args
    compute_loss = trainer.compute_loss
    order = iter(rows)

    def computing(model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        labels = inputs["labels"].cpu()
        own = int((labels != IGNORED).sum()) * trainer.current_gradient_accumulation_steps
        weight = 1 / float(own if num_items_in_batch is None else num_items_in_batch)
        if num_items_in_batch is None or not args.average_tokens_across_devices:
            # Of tokens of this process alone; gradients are means over processes.
            weight /= group.size()
        for row in labels:
            ids = row[row != IGNORED]
            number, question = next(order)
            take(Taught(number, question, ids.tolist(), torch.full(ids.shape, weight), None, 1.0))
        return compute_loss(model, inputs, return_outputs, num_items_in_batch)

    trainer.compute_loss = computing  # type: ignore[method-assign]


NUMBER = "rollout_number"


class ReinforcedWatch:
    """Takes down every rollout each time that a step learns from it, with the slopes of TRL's own loss.

    They hold the advantage, the ratio to the policy that sampled it, and whatever clip was active.
    """

    def __init__(self, trainer: GRPOTrainer, take: Take, before: int) -> None:
        """`before` are the rollouts of this process that an interrupted training had learned from."""
        self.trainer, self.take = trainer, take
        self.drawn = before
        self.asked: dict[int, str] = {}
        """The question of every rollout of this process since it began, by its number."""
        self.generate, self.loss = trainer._generate_and_score_completions, trainer._compute_loss
        self.read = trainer._get_per_token_logps_and_entropies
        self.last: tuple[Any, ...] = ()
        ours: dict[str, Any] = {
            "_generate_and_score_completions": self._generating,
            "_compute_loss": self._computing,
            "_get_per_token_logps_and_entropies": self._reading,
        }
        vars(trainer).update(ours)

    def _generating(self, inputs: Any) -> Any:
        output = self.generate(inputs)
        # Of all processes, whose rollouts come one process after another.
        first = self.drawn * group.size() + len(inputs) * group.number()
        self.drawn += len(inputs)
        self.asked |= {first + place: row["id"] for place, row in enumerate(inputs)}
        return {**output, NUMBER: torch.arange(first, first + len(inputs))}

    def _reading(self, *given: Any, **named: Any) -> Any:
        self.last = self.read(*given, **named)
        return self.last

    def _computing(self, model: Any, inputs: Any) -> Any:
        loss = self.loss(model, inputs)
        weights = self._slopes(model, inputs, 0.0)
        beta = self.trainer.beta
        penalty = self._slopes(model, inputs, beta) - weights if beta else None
        mask = inputs["completion_mask"].bool().cpu()
        for index, number in enumerate(inputs[NUMBER].tolist()):
            real = mask[index]
            self.take(
                Taught(
                    number,
                    self.asked[number],
                    inputs["completion_ids"][index].cpu()[real].tolist(),
                    weights[index][real],
                    None if penalty is None else penalty[index][real],
                    float(inputs["advantages"][index]),
                )
            )
        return loss

    def _slopes(self, model: Any, inputs: Any, beta: float) -> Tensor:
        """−∂loss/∂ log π (rollouts, tokens) of TRL's loss, the mean over processes, with a coefficient of its KL."""
        logps, *others = self.last
        leaf = logps.detach().clone().requires_grad_()
        given = (leaf, *(other.detach() if isinstance(other, Tensor) else other for other in others))
        trainer = self.trainer
        kept, trainer.beta = (trainer.beta, trainer._metrics), beta
        # What TRL notes of a loss is noted once already.
        trainer._metrics = {"train": defaultdict(list), "eval": defaultdict(list)}
        vars(trainer)["_get_per_token_logps_and_entropies"] = lambda *_, **__: given
        try:
            with torch.enable_grad():
                [slopes] = torch.autograd.grad(GRPOTrainer._compute_loss(trainer, model, dict(inputs)), [leaf])
        finally:
            trainer.beta, trainer._metrics = kept
            vars(trainer)["_get_per_token_logps_and_entropies"] = self._reading
        return -slopes.cpu() / group.size()
