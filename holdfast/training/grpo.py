"""Reinforcement fine-tuning: GRPO with verifiable rewards, as TRL computes it.

A step samples a group of completions for each prompt, pays every one with the sum of its weighted reward terms, and
raises the probability of those above their group's mean (advantage = reward − mean, over the group's deviation where
`scale_rewards` says so). What is rewarded is graded by the functions of the evaluation. Nothing is sampled that a
completion cannot hold, and the KL's reference, where `beta` asks for one, is the model as the stage found it.
"""

from __future__ import annotations

from functools import partial
from typing import Any, TypeVar

import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from holdfast.data.chat import reads_images
from holdfast.data.training_set import TrainingRow
from holdfast.models.end_of_turn import stop_ids
from holdfast.models.load import placeholder_ids, without_placeholders
from holdfast.training.dataset import conversation, dataset
from holdfast.training.prompt_sharing_trainer import PromptSharingTrainer
from holdfast.training.rewards import Reward
from holdfast.training.vllm_rollouts import sampling_arguments

T = TypeVar("T", bound=PromptSharingTrainer)


def grpo_trainer(
    kind: type[T], model: Any, processor: Any, config: GRPOConfig, asked: tuple[Dataset, dict[str, Reward]]
) -> T:
    """A trainer of this kind that takes prompts (made by `prompt_dataset`), beside their rewards, in their order."""
    prompts, rewards = asked
    given: Any = config.generation_kwargs or {}
    if config.use_vllm:
        ends = stop_ids(model.generation_config)
        config.generation_kwargs = sampling_arguments(given, placeholder_ids(model.config), ends)
    else:
        config.generation_kwargs = without_placeholders(model.config, given)
    functions: Any = list(rewards.values())
    trainer = kind(
        model=model,
        reward_funcs=functions,
        args=config,
        train_dataset=prompts,
        processing_class=processor if reads_images(processor) else processor.tokenizer,
    )
    if trainer.ref_model is not None:
        # TRL loads the reference from the path that the model's configuration names, which knows of no merged adapter.
        refer_to(trainer, model)
        if config.bf16 or config.fp16:
            # It computes in half precision, so its weights need no more.
            reference: Any = trainer.ref_model
            reference.to(torch.bfloat16 if config.bf16 else torch.float16)
    return trainer


def refer_to(trainer: GRPOTrainer, model: Any) -> None:
    """Measure the KL, if there is one, from this model's weights."""
    reference: Any = trainer.ref_model
    if reference is not None:
        reference.load_state_dict(model.state_dict())


def prompt_dataset(processor: Any, rows: list[TrainingRow], order: list[int]) -> Dataset:
    """Questions in the given order, with the columns that TRL and the rewards read."""
    return dataset(rows, order, partial(conversation, processor))
