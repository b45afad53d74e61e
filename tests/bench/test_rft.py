"""Ours and TRL's plain trainer are compared at the same work, and the comparison sees where it is not."""

from __future__ import annotations

import math

import pytest
import torch

from bench.grpo_sides import PARTS, agreement
from bench.qwen import STAND_IN
from bench.rft import pair, ratios, shaped, table, take_turns

SMALL = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "num_generations": 2, "num_iterations": 2}
DECAY = {"weight_decay": 0.1, "warmup_steps": 0}
"""At any other rate than 0, weights would shrink even where no rollout is rewarded."""


@pytest.mark.slow
def test_both_trainers_sample_and_learn_the_same_and_their_parts_add_up() -> None:
    sides, asked = pair(shaped(STAND_IN, torch.device("cpu"), **SMALL, **DECAY), rounds=2)
    plain, ours = sides.values()
    before = [value.clone() for value in ours.trainer.model.parameters()]
    taken = take_turns(sides, asked)
    assert all(map(torch.equal, before, ours.trainer.model.parameters()))
    for [one] in taken.values():
        assert sum(one[part] for part in (*PARTS, "update", "rest")) == pytest.approx(one["step"])
        assert all(math.isfinite(one[part]) and one[part] > 0 for part in ("rollout", "reward", "update"))
    # Old log-probabilities, which ours takes from the first step.
    assert taken["TRL's plain"][0]["log-probs"] > 0
    assert taken["Holdfast"][0]["log-probs"] == 0
    assert len(ratios(taken, "step")) == 1
    assert table(taken).count("\n") == 4

    found = agreement(plain, ours)
    assert (found.same, found.rollouts) == (4, 4)
    assert found.gradient < 1e-4
    with torch.no_grad():
        for name, value in ours.trainer.model.named_parameters():
            if "lora_B" in name:
                value += 0.1
    assert agreement(plain, ours).gradient > 1e-2
