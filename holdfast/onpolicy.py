"""What a reinforced stage would learn from at a checkpoint: its own rollouts with their advantages."""

from __future__ import annotations

from typing import Any

import numpy as np

from holdfast.config import GRPO
from holdfast.data.shards import Question
from holdfast.evaluation.generate import Reader, Sampling, generate
from holdfast.jobs import Trace
from holdfast.training.rewards import REWARDS

TRL_GROUP = 8
"""GRPOConfig's default for num_generations."""


def rollouts(job: Trace, processor: Any) -> Any:
    """A function of a model, questions and a number: about so many rollouts as (question, tokens, advantage)."""
    stage = job.train.stage
    assert isinstance(stage, GRPO)
    group = int(stage.trainer.get("num_generations", TRL_GROUP))
    limit = int(stage.trainer.get("max_completion_length", job.train.evaluation.max_new_tokens))
    temperature = float(stage.trainer.get("temperature", 1.0))
    reader = Reader(processor, job.train.evaluation.batch_size)

    def speak(model: Any, questions: list[Question], count: int) -> list[tuple[Question, list[int], float]]:
        asked = questions[: max(1, count // group)]
        written = generate(model, reader, reader.encode(asked), Sampling(limit, temperature, group, job.seed))
        said = [[reader.text(ids) for ids in of_question] for of_question in written]
        rewards = np.array([[reward(stage, q, text) for text in texts] for q, texts in zip(asked, said, strict=True)])
        weights = advantages(rewards, stage.trainer.get("scale_rewards", "group"))
        return [
            (question, ids, float(weight))
            for question, of_question, row in zip(asked, written, weights, strict=True)
            for ids, weight in zip(of_question, row, strict=True)
        ]

    return speak


def reward(stage: GRPO, question: Question, text: str) -> float:
    """The weighted sum of the stage's reward terms."""
    columns = {
        "answer": [question.answer],
        "grader": [question.grader],
        "thinking": ["<think>" in question.prompt],
    }
    chat = [[{"role": "assistant", "content": text}]]
    return sum(weight * REWARDS[name](completions=chat, **columns)[0] for name, weight in stage.rewards.items())


def advantages(rewards: np.ndarray, scale: str | bool) -> np.ndarray:
    """(prompts, rollouts) less their group's mean, over the standard deviation of the group, the batch, or nothing.

    As TRL's GRPOTrainer: sample standard deviation plus 1e-4 (Shao et al. 2024, outcome supervision). Rollouts that
    were all rewarded alike have an advantage of exactly 0.
    """
    # The mean of equal numbers is off by rounding, which 1e-4 below would make an advantage of.
    alike = np.ptp(rewards, axis=1, keepdims=True) == 0
    centred = np.where(alike, 0.0, rewards - rewards.mean(1, keepdims=True))
    if scale in ("none", False):
        return centred
    width = rewards.std(ddof=1) if scale == "batch" else rewards.std(1, ddof=1, keepdims=True)
    return centred / (width + 1e-4)
