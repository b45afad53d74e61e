"""Reinforcement fine-tuning: TRL's GRPOTrainer with verifiable rewards, from the model as the stage found it."""

from __future__ import annotations

from typing import Any

from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from holdfast.models.load import placeholder_ids
from holdfast.training.rewards import Reward


def grpo_trainer(
    model: Any, processor: Any, config: GRPOConfig, data: Dataset, rewards: dict[str, Reward]
) -> GRPOTrainer:
    """A trainer that never samples a placeholder, and whose KL reference is `model` as it is now."""
    given: Any = config.generation_kwargs or {}
    config.generation_kwargs = {"suppress_tokens": placeholder_ids(model.config), **given}
    functions: Any = list(rewards.values())
    trainer = GRPOTrainer(
        model=model, reward_funcs=functions, args=config, train_dataset=data, processing_class=processor
    )
    if trainer.ref_model is not None:
        # TRL loads the reference from the path that the model's configuration names, which knows of no merged adapter.
        trainer.ref_model.load_state_dict(model.state_dict())
    return trainer
