"""Ours and TRL's plain trainer are compared at the same work, and the comparison sees where it is not."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from vllm_runs import needs_vllm

from bench.grpo_sides import PARTS, agreement
from bench.qwen import STAND_IN
from bench.rft import ratios, shaped, table, take_turns, trainers, without_vllm

SMALL = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "num_generations": 2, "num_iterations": 2}
DECAY = {"weight_decay": 0.1, "warmup_steps": 0}
"""At any other rate than 0, weights would shrink even where no rollout is rewarded."""


@pytest.mark.slow
def test_both_trainers_sample_and_learn_the_same_and_their_parts_add_up() -> None:
    sides, asked = trainers(shaped(STAND_IN, torch.device("cpu"), **SMALL, **DECAY), rounds=2)
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


def test_without_vllm_a_line_says_that_it_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.models.vllm_engine.find_spec", lambda name: None)
    said = without_vllm("--vllm")
    assert said.startswith("Holdfast with vLLM is left out: --vllm: vLLM is not in this environment; `make vllm`")
    monkeypatch.setattr("holdfast.models.vllm_engine.find_spec", lambda name: name)
    monkeypatch.setattr("holdfast.models.vllm_engine.version", lambda name: "0.31.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert without_vllm("--vllm").endswith(
        "--vllm: this vLLM computes on a GPU and torch sees none; run on a machine with one"
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert without_vllm("--vllm") == ""


@needs_vllm
def test_rollouts_by_vllm_have_a_line_of_their_own_and_are_the_models() -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, str(root / "tests/support/vllm_bench.py"), "--quick", "--vllm"]
    own = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(command, capture_output=True, text=True, env=own, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    [line] = re.findall(r"^\| Holdfast with vLLM \| (.*) \|$", done.stdout, re.MULTILINE)
    rollout, _, log_probs, update, _, step = map(float, line.split(" | "))
    # The correction for vLLM's probabilities reads every rollout once.
    assert min(rollout, log_probs, update) > 0
    assert step > rollout + log_probs + update
    assert re.search(r"^\| Holdfast with vLLM / plain \| \d", done.stdout, re.MULTILINE)
    [apart] = re.findall(r"vLLM and of the trainer are (\S+) nats apart", done.stdout)
    assert 0 < float(apart) < 1e-3


def test_vllm_is_asked_for_completions_of_the_same_length_by_its_own_name() -> None:
    work = shaped(STAND_IN, torch.device("cpu"))
    assert work.stage.trainer["generation_kwargs"] == {"min_new_tokens": STAND_IN.completion}
    assert work.by_vllm().stage.trainer["generation_kwargs"] == {"min_tokens": STAND_IN.completion}
