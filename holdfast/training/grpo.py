"""Reinforcement fine-tuning: TRL's GRPOTrainer with verifiable rewards, from the model as the stage found it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from holdfast.models.load import placeholder_ids
from holdfast.models.shared_prompts import can_share, shared_prompts
from holdfast.training.rewards import Reward


class SharingTrainer(GRPOTrainer):
    """TRL's trainer, but a prompt goes through the model once for all of its rollouts.

    The loss and its gradient are TRL's up to rounding; most of a short rollout's cost is its prompt and image.
    """

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Any, attention_mask: Any, logits_to_keep: int, *rest: Any, **others: Any
    ) -> Any:
        scored = super()._get_per_token_logps_and_entropies
        if not self._shares:
            return scored(model, input_ids, attention_mask, logits_to_keep, *rest, **others)
        width = input_ids.shape[1] - logits_to_keep

        def completions(labels: Any, **inputs: Any) -> Any:
            return model(**inputs, shift_labels=labels[:, width:])

        with shared_prompts(model, width):
            return scored(completions, input_ids, attention_mask, logits_to_keep, *rest, **others)

    def _generate_single_turn(self, *rest: Any, **others: Any) -> Any:
        with shared_prompts(self.model) if self._shares else nullcontext():
            return super()._generate_single_turn(*rest, **others)

    @property
    def _shares(self) -> bool:
        alone = self.accelerator.num_processes == 1 and not self.args.gradient_checkpointing
        return alone and can_share(self.model)


def grpo_trainer(
    model: Any, processor: Any, config: GRPOConfig, data: Dataset, rewards: dict[str, Reward]
) -> GRPOTrainer:
    """A trainer that never samples a placeholder, and whose KL reference is `model` as it is now."""
    given: Any = config.generation_kwargs or {}
    config.generation_kwargs = {"suppress_tokens": placeholder_ids(model.config), **given}
    functions: Any = list(rewards.values())
    trainer = SharingTrainer(
        model=model, reward_funcs=functions, args=config, train_dataset=data, processing_class=processor
    )
    if trainer.ref_model is not None:
        # TRL loads the reference from the path that the model's configuration names, which knows of no merged adapter.
        trainer.ref_model.load_state_dict(model.state_dict())
    return trainer
