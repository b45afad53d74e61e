"""Rollouts by vLLM are the model's own. What needs vLLM runs in its environment: `make test-vllm`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from trainings import logged
from trl.generation import vllm_generation
from vllm_runs import begun, needs_vllm, served, staged

from holdfast.config.methods import GRPO
from holdfast.config.refs import ModelRef
from holdfast.errors import UserError
from holdfast.models.load import load_model
from holdfast.models.lora import adapted
from holdfast.models.tiny.shipped import shipped_base
from holdfast.models.vllm_engine import BANNED, Engine
from holdfast.training.arguments import anywhere
from holdfast.training.vllm_rollouts import (
    DIFFERENCE,
    merged_parameters,
    require_alike,
    rolling_out_by,
    sampling_arguments,
)

STEPS = 6
STAGE: dict[str, Any] = {
    "method": "grpo",
    "freeze": [],
    "rewards": {"score": 1.0, "longer": {"kind": "length", "variant": "minmax", "unit": "words", "weight": 1.0}},
    "trainer": {
        "max_steps": STEPS,
        "logging_steps": 1,
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "learning_rate": 1e-3,
        "max_completion_length": 40,
        "use_vllm": True,
        "vllm_max_model_length": 256,
    },
}
SERVED = {
    **{name: value for name, value in STAGE["trainer"].items() if name != "vllm_max_model_length"},
    "vllm_mode": "server",
    # vLLM's own limit of a request that names none is another.
    "max_completion_length": 16,
}


def test_placeholders_are_banned_beside_what_the_user_asks_for():
    given = sampling_arguments({"logit_bias": {5: 1.0}, "seed": 3}, banned=[7], ends=[2])
    assert given == {"stop_token_ids": [2], "seed": 3, "logit_bias": {7: BANNED, 5: 1.0}}


def test_a_vllm_that_does_not_start_is_one_sentence(monkeypatch: pytest.MonkeyPatch):
    def without_room(**_: Any) -> None:
        raise ValueError("No available memory for the cache blocks. Try increasing `gpu_memory_utilization`.")

    monkeypatch.setattr(vllm_generation, "LLM", without_room, raising=False)
    engine = Engine("model", None, "bfloat16", 0, None, None)
    said = r"trainer\.use_vllm: vLLM does not start \(No available memory .*\); correct its arguments, or remove"
    with rolling_out_by(engine), pytest.raises(UserError, match=said):
        vllm_generation.LLM()


@pytest.mark.parametrize("found", [0.2, float("nan")])
def test_rollouts_of_another_model_stop_the_training(found: float):
    require_alike({DIFFERENCE: [5.0, 0.01]}, 0.1)
    with pytest.raises(UserError, match=r"rollout_difference allows 0\.1"):
        require_alike({DIFFERENCE: [0.01, found]}, 0.1)


def test_what_vllm_cannot_do_is_said_before_the_training(monkeypatch: pytest.MonkeyPatch):
    def refused(**trainer: Any) -> str:
        with pytest.raises(UserError) as caught:
            anywhere(GRPO(method="grpo", trainer={"use_vllm": True, **trainer}), 16)
        return str(caught.value)

    monkeypatch.setattr("holdfast.models.vllm_engine.find_spec", lambda name: None)
    assert "trainer.use_vllm: vLLM is not in this environment; `make vllm`" in refused()
    assert "vllm_mode: remote is unknown; use one of colocate, server" in refused(vllm_mode="remote")
    monkeypatch.setattr("holdfast.models.vllm_engine.find_spec", lambda name: name)
    monkeypatch.setattr("holdfast.models.vllm_engine.version", lambda name: "0.31.0")
    assert "vllm_importance_sampling_correction: without it" in refused(vllm_importance_sampling_correction=False)
    assert "vllm_max_model_length is for vLLM in the training's process; give the server --max-model-len" in refused(
        vllm_mode="server", vllm_max_model_length=256
    )
    for mode in ("colocate", "server"):
        anywhere(GRPO(method="grpo", trainer={"use_vllm": True, "vllm_mode": mode}), 16)


@pytest.mark.parametrize(
    "more",
    [{}, {"use_dora": True}, {"lora_bias": True, "target_modules": ["q_proj", "v_proj"]}],
    ids=["plain", "dora", "bias"],
)
def test_an_adapter_is_merged_into_copies_and_the_weights_stay_to_the_bit(tiny_model: ModelRef, more: dict[str, Any]):
    stage = GRPO(method="grpo", lora={"r": 4, "target_modules": "all-linear", **more})
    model = adapted(load_model(tiny_model, torch.bfloat16), stage, 0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "magnitude" in name:
            torch.nn.init.normal_(parameter)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    merged = {name: value.clone() for name, value in merged_parameters(model)}
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    alone = model.merge_and_unload()
    assert merged.keys() == dict(alone.named_parameters()).keys()
    for name, parameter in alone.named_parameters():
        assert torch.equal(merged[name], parameter), name


@needs_vllm
@pytest.mark.parametrize("more", [{}, {"lora": {"r": 4, "target_modules": "all-linear"}}], ids=["full", "lora"])
def test_vllm_samples_from_the_trainers_probabilities_at_every_step(
    train_job: Callable[..., Any], tmp_path: Path, more: dict[str, Any]
):
    done = staged(train_job({**STAGE, **more}, shipped_base(), keep=2), tmp_path)
    assert (tmp_path / "result.json").exists(), done.stderr[-3000:]
    differences = logged(tmp_path, f"train/{DIFFERENCE}")
    assert len(differences) == STEPS
    assert 0 < max(differences) < 1e-3
    assert max(logged(tmp_path, "train/grad_norm")) > 0


@needs_vllm
def test_a_training_that_was_killed_goes_on_with_the_rollouts_it_would_have_had(
    train_job: Callable[..., Any], tmp_path: Path
):
    job = train_job(STAGE, shipped_base(), keep=2)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    staged(job, whole)
    process = begun(job, killed)
    while not (killed / "trainer" / "checkpoint-2" / "complete.json").exists() and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert not (killed / "result.json").exists()
    staged(job, killed)
    assert json.loads((killed / "result.json").read_text())["notes"]["resumed_at"] >= 2
    last = f"checkpoints/step-{STEPS:06d}/model.safetensors"
    expected, found = load_file(whole / last), load_file(killed / last)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@needs_vllm
def test_greedy_rollouts_are_those_of_transformers_token_for_token(train_job: Callable[..., Any], tmp_path: Path):
    written = []
    for use in (True, False):
        trainer = {**STAGE["trainer"], "max_steps": 1, "top_k": 1, "use_vllm": use}
        # vLLM's probabilities are those after top_k: 1.
        stage = {**STAGE, "trainer": trainer, "rollout_difference": 10}
        done = staged(train_job(stage, shipped_base()), tmp_path / str(use))
        assert (tmp_path / str(use) / "result.json").exists(), done.stderr[-3000:]
        written.append(pq.read_table(tmp_path / str(use) / "completions.parquet")["completion"].to_pylist())
    assert written[0] == written[1]


@needs_vllm
def test_the_look_at_the_probabilities_can_fail(train_job: Callable[..., Any], tmp_path: Path):
    done = staged(train_job({**STAGE, "rollout_difference": 1e-12}, shipped_base()), tmp_path)
    assert done.returncode == 2
    assert "nats apart" in (tmp_path / "error.json").read_text()


@needs_vllm
def test_a_servers_rollouts_are_those_of_an_engine_in_the_trainings_process(
    train_job: Callable[..., Any], tmp_path: Path
):
    base = shipped_base()
    short = {**STAGE, "trainer": {**STAGE["trainer"], "max_completion_length": 16}}
    here = staged(train_job(short, base), tmp_path / "here")
    with served(base.path, tmp_path / "server") as url:
        trainer = {**SERVED, "vllm_server_base_url": url}
        there = staged(train_job({**STAGE, "trainer": trainer}, base), tmp_path / "there")
    assert (tmp_path / "here" / "result.json").exists(), here.stderr[-3000:]
    assert (tmp_path / "there" / "result.json").exists(), there.stderr[-3000:]
    written = [
        pq.read_table(tmp_path / name / "completions.parquet")["completion"].to_pylist() for name in ("here", "there")
    ]
    # Weights are another's after every step, so a server that kept the first ones would write something else.
    assert len(set(written[0])) > STEPS
    assert written[0] == written[1]
    assert 0 < max(logged(tmp_path / "there", f"train/{DIFFERENCE}")) < 1e-3


@needs_vllm
def test_a_server_that_is_not_there_is_told_before_the_first_step(train_job: Callable[..., Any], tmp_path: Path):
    trainer = {**SERVED, "vllm_server_port": 9, "vllm_server_timeout": 0.0}
    done = staged(train_job({**STAGE, "trainer": trainer}, shipped_base()), tmp_path)
    assert done.returncode == 2
    said = json.loads((tmp_path / "error.json").read_text())["message"]
    assert said.startswith(
        "trainer.vllm_mode: no vLLM server answers at http://0.0.0.0:9; start it: VLLM_SERVER_DEV_MODE=1"
    )
    assert f"vllm serve {shipped_base().path} --enable-scale-out" in said
