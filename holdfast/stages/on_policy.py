"""What a reinforced stage would learn from at a checkpoint: its own rollouts with their advantages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from trl import GRPOConfig

from holdfast.config.jobs import Trace
from holdfast.config.measurement import LEAST_PROMPTS
from holdfast.config.methods import GRPO
from holdfast.data.chat import whole
from holdfast.data.shards import Question
from holdfast.evaluation.generate import Reader, Sampling, generate
from holdfast.training.arguments import anywhere, sampling_settings
from holdfast.training.dataset import reward_columns
from holdfast.training.rewards import Rewards, token_counter


def rollouts(job: Trace, processor: Any) -> Any:
    """A function of a model, questions, a number and a step of the training: about so many rollouts, of
    `LEAST_PROMPTS` questions at least, as (question, tokens, advantage), rewarded as the training would reward them
    after that step."""
    stage = job.train.stage
    assert isinstance(stage, GRPO)
    config = anywhere(stage, job.train.limit)
    assert isinstance(config, GRPOConfig)
    group, limit = config.num_generations or 1, config.max_completion_length or job.train.limit
    sampling = Sampling(limit, config.temperature, group, job.seed, sampling_settings(config))
    reader = Reader(processor, job.train.evaluation.batch_size)
    kept = {ref.step: Path(ref.path) for ref in job.kept}

    def speak(
        model: Any, questions: list[Question], count: int, step: int = 0
    ) -> list[tuple[Question, list[int], float]]:
        asked = questions[: max(LEAST_PROMPTS, count // group)]
        written = generate(model, reader, reader.encode(asked), sampling)
        said = [(question, ids) for question, samples in zip(asked, written, strict=True) for ids in samples]
        rewards = Rewards(stage.rewards, group, token_counter(reader.tokenizer))
        if step in kept:
            rewards.load(kept[step])
        columns = reward_columns([(one, whole(one, reader.text(ids))) for one, ids in said], processor, step)
        parts = np.stack([np.array(reward(**columns)) for reward in rewards.functions().values()], -1)
        weights = np.array([term.weight for term in stage.rewards.values()])
        found = aggregated(parts.reshape(len(asked), group, -1), weights, stage.trainer).ravel()
        return [(question, ids, float(weight)) for (question, ids), weight in zip(said, found, strict=True)]

    return speak


def aggregated(parts: np.ndarray, weights: np.ndarray, trainer: dict[str, Any]) -> np.ndarray:
    """Advantages (prompts, rollouts) of reward terms (prompts, rollouts, terms), as TRL's GRPOTrainer.

    NaN is a term that does not apply. `normalize_then_sum` is GDPO (arXiv 2601.05242).
    """
    if trainer.get("multi_objective_aggregation") != "normalize_then_sum":
        rewards = np.where(np.isnan(parts).all(2), np.nan, np.nansum(parts * weights, 2))
        return np.nan_to_num(advantages(rewards, trainer.get("scale_rewards", "group")))
    centred = parts - np.nanmean(parts, 1, keepdims=True)
    apart = centred / (np.nanstd(parts, 1, ddof=1, keepdims=True) + 1e-4)
    rewards = np.where(np.isnan(parts).all(2), np.nan, np.nansum(apart * weights, 2))
    return np.nan_to_num((rewards - np.nanmean(rewards)) / (np.nanstd(rewards, ddof=1) + 1e-4))


def advantages(rewards: np.ndarray, scale: str | bool) -> np.ndarray:
    """(prompts, rollouts) less their group's mean, over the standard deviation of the group, the batch, or nothing.

    As TRL's GRPOTrainer: sample standard deviation plus 1e-4 (Shao et al. 2024, outcome supervision). Rollouts that
    were all rewarded alike have an advantage of exactly 0.
    """
    # The mean of equal numbers is off by rounding, which 1e-4 below would make an advantage of.
    alike = np.nanmax(rewards, 1, keepdims=True) == np.nanmin(rewards, 1, keepdims=True)
    centred = np.where(alike, 0.0, rewards - np.nanmean(rewards, 1, keepdims=True))
    if scale in ("none", False):
        return centred
    width = np.nanstd(rewards, ddof=1) if scale == "batch" else np.nanstd(rewards, 1, ddof=1, keepdims=True)
    return centred / (width + 1e-4)
