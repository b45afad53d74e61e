"""Training on the tiny model: what moves, what stays, what is learned, and that interruption leaves no trace."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from transformers import Qwen2_5_VLTextModel
from transformers.modeling_layers import GradientCheckpointingLayer
from trl import GRPOTrainer

from holdfast.config.jobs import Train
from holdfast.config.refs import FileRef, ModelRef
from holdfast.data.shards import read_questions
from holdfast.evaluation.stage import validating
from holdfast.journal import Journal, read_lines
from holdfast.models.load import load_model, load_processor
from holdfast.stages.on_policy import aggregated
from holdfast.training.callback import StageCallback
from holdfast.training.dataset import conversation
from holdfast.training.prompt_sharing_trainer import PromptSharingTrainer
from holdfast.training.stage import build

SCHOOL = {
    "max_steps": 60,
    "per_device_train_batch_size": 16,
    "learning_rate": 1e-2,
    "lr_scheduler_type": "constant",
}
SFT = {"max_steps": 4, "per_device_train_batch_size": 4, "learning_rate": "1e-3"}
GRPO = {
    "max_steps": 4,
    "per_device_train_batch_size": 8,
    "num_generations": 4,
    "learning_rate": 1e-3,
    "max_completion_length": 16,
    "beta": 0.05,
}
LORA = {"r": 4, "target_modules": "all-linear"}


def sft(**trainer: Any) -> dict[str, Any]:
    return {"method": "sft", "source": "answers", "trainer": {**SFT, **trainer}}


def grpo(**trainer: Any) -> dict[str, Any]:
    return {"method": "grpo", "trainer": {**GRPO, **trainer}}


def distill(**trainer: Any) -> dict[str, Any]:
    sampled = {"max_completion_length": 16, **trainer}
    return {"method": "distill", "teacher": {"kind": "demonstration", "ema": 0.5}, "trainer": {**SFT, **sampled}}


SHAPED = {
    "score": 1.0,
    "format": {"weight": 0.5, "warm_up": 4},
    "adjacency": 0.0,
    "near": {"kind": "length", "variant": "running-mean", "weight": 0.3},
    "longer": {"kind": "length", "variant": "minmax", "unit": "words", "weight": 0.2, "gate": "correct", "warm_up": 3},
}


def shaped(**trainer: Any) -> dict[str, Any]:
    return {**grpo(**trainer), "rewards": SHAPED}


def weights(out: Path, step: int = 4) -> dict[str, torch.Tensor]:
    return load_file(out / "checkpoints" / f"step-{step:06d}" / "model.safetensors")


def trainer_of(job: Train, out: Path) -> Any:
    out.mkdir(exist_ok=True)
    processor = load_processor(job.start)
    return build(job, processor, out, StageCallback(out, Journal(out), lambda model, step: {}, processor))


@pytest.mark.parametrize(
    "stage",
    [
        {**grpo(num_iterations=2), "freeze": []},
        {**grpo(), "lora": LORA},
        {**grpo(gradient_checkpointing=True), "freeze": []},
        {**grpo(gradient_checkpointing=True), "lora": LORA},
    ],
    ids=["everything", "lora", "everything, checkpointed", "lora, checkpointed"],
)
def test_sharing_prompts_among_rollouts_changes_neither_loss_nor_gradient(
    stage: dict[str, Any], schooled: ModelRef, train_job: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_of(train_job(stage, schooled), tmp_path / "stage")
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    inputs = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    rows_read: list[int] = []
    body = next(module for module in trainer.model.modules() if isinstance(module, Qwen2_5_VLTextModel))
    body.register_forward_pre_hook(
        lambda _, args, given: rows_read.append(len(given["inputs_embeds"])), with_kwargs=True
    )

    def learned() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        trainer.model.zero_grad()
        loss = trainer._compute_loss(trainer.model, inputs)
        loss.backward()
        learning = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
        return loss.detach(), {name: p.grad.clone() for name, p in learning.items()}

    loss, gradients = learned()
    monkeypatch.setattr(type(trainer), "_shares", False)
    alone, expected = learned()
    assert rows_read == [2, 8, 8]
    torch.testing.assert_close(loss, alone, rtol=1e-5, atol=1e-6)
    assert max(g.norm() for g in expected.values()) > 1e-3
    for name, gradient in gradients.items():
        assert (gradient - expected[name]).norm() <= 1e-4 * expected[name].norm() + 1e-7, name


@pytest.mark.parametrize("parts", [pytest.param(1, marks=pytest.mark.slow), 2], ids=["one pass a step", "accumulated"])
def test_the_first_of_several_iterations_gives_the_log_probabilities_of_the_samples(
    parts: int, train_job: Callable, run_stage: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = {"per_device_train_batch_size": 8 // parts, "gradient_accumulation_steps": parts}
    job = train_job(grpo(num_iterations=2, max_steps=6, **batch))
    reads = []
    score = GRPOTrainer._get_per_token_logps_and_entropies
    monkeypatch.setattr(
        GRPOTrainer,
        "_get_per_token_logps_and_entropies",
        lambda *given, **named: reads.append(1) or score(*given, **named),
    )
    ours = weights(run_stage(job, tmp_path / "ours"), 6)
    # Three times a reference for two steps over it, with as many parts each.
    assert len(reads) == 3 + 6 * parts
    monkeypatch.setattr(
        PromptSharingTrainer, "_generate_and_score_completions", GRPOTrainer._generate_and_score_completions
    )
    plain = weights(run_stage(job, tmp_path / "plain"), 6)
    assert len(reads) == 2 * (3 + 6 * parts) + 3
    for name, value in plain.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("stage", [sft(), grpo()], ids=["sft", "grpo"])
def test_training_moves_every_free_parameter_and_no_frozen_one(
    stage: dict[str, Any], schooled: ModelRef, train_job: Callable, run_stage: Callable, tmp_path: Path
) -> None:
    out = run_stage(train_job(stage, schooled), tmp_path)
    before, after = load_file(Path(schooled.path) / "model.safetensors"), weights(out)
    for name in before:
        assert torch.equal(before[name], after[name]) == ("visual" in name), name


def test_a_stage_leaves_checkpoints_records_metrics_and_digests(
    schooled: ModelRef, train_job: Callable, run_stage: Callable, tmp_path: Path
) -> None:
    out = run_stage(train_job(grpo(), schooled, keep=2), tmp_path)
    result = json.loads((out / "result.json").read_text())
    assert [checkpoint["step"] for checkpoint in result["checkpoints"]] == [2, 4]
    asked = {"validation/target/jigsaw/score", "validation/prior/mean/accuracy"}
    assert asked <= result["metrics"].keys()
    assert not any(name.startswith(("target/", "prior/")) for name in result["metrics"])
    assert not any(name.startswith("trainer/") for name in result["files"])
    table = pq.read_table(out / "completions.parquet")
    assert set(table.column_names) == {"step", "id", "prompt", "completion", "score", "accuracy", "format"}
    assert sorted(set(table["step"].to_pylist())) == [0, 1, 2, 3]
    assert len(table) == 4 * 8


@pytest.mark.parametrize(
    "stage",
    [
        sft(),
        grpo(),
        pytest.param({**sft(), "lora": {**LORA, "lora_dropout": 0.1}}, marks=pytest.mark.slow),
        pytest.param({**grpo(), "lora": LORA}, marks=pytest.mark.slow),
        pytest.param(grpo(num_iterations=2), marks=pytest.mark.slow),
        pytest.param(grpo(gradient_accumulation_steps=2, steps_per_generation=4), marks=pytest.mark.slow),
        pytest.param(distill(num_iterations=2), marks=pytest.mark.slow),
    ],
    ids=["sft", "grpo", "sft-lora", "grpo-lora", "grpo-reusing", "grpo-ahead", "distill-following"],
)
def test_an_interrupted_training_ends_with_the_same_bits_as_an_uninterrupted_one(
    stage: dict[str, Any], schooled: ModelRef, train_job: Callable, run_stage: Callable, tmp_path: Path
) -> None:
    stage = {**stage, "trainer": {**stage["trainer"], "max_steps": 6}}
    job = train_job(stage, schooled, keep=2)
    whole = run_stage(job, tmp_path / "whole")
    broken = interrupted(job, tmp_path / "broken", at=4)
    run_stage(job, broken)
    kept = sorted(path.name for path in (whole / "checkpoints").iterdir())
    assert kept == sorted(path.name for path in (broken / "checkpoints").iterdir())
    for name in kept:
        file = "adapter_model.safetensors" if "lora" in stage else "model.safetensors"
        ours, theirs = (load_file(out / "checkpoints" / name / file) for out in (whole, broken))
        assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == [], name
    assert recorded(whole) == recorded(broken)
    assert json.loads((broken / "result.json").read_text())["notes"]["resumed_at"] > 0
    if stage["method"] != "sft":
        assert pq.read_table(whole / "completions.parquet") == pq.read_table(broken / "completions.parquet")


@pytest.fixture(scope="module")
def reasoning(
    train_job: Callable, tiny_data: Any, run_stage: Callable, tmp_path_factory: pytest.TempPathFactory
) -> ModelRef:
    """The tiny model after it has learned to think nought to three words."""
    place = tmp_path_factory.mktemp("reasoning")
    questions = read_questions(tiny_data.path / "target-train.parquet")
    said = [f"<think> {'piece ' * (i % 4)}</think> {question.reference}" for i, question in enumerate(questions)]
    rows = [{"id": question.id, "completion": text} for question, text in zip(questions, said, strict=True)]
    pq.write_table(pa.Table.from_pylist(rows), place / "samples.parquet")
    stage = {"method": "sft", "source": "self", "freeze": [], "trainer": SCHOOL}
    samples = FileRef(path=place / "samples.parquet", digest="thoughts")
    out = run_stage(train_job(stage).model_copy(update={"samples": samples}), place / "out")
    return ModelRef(path=str(out / "checkpoints" / "step-000060"), digest="reasoning", step=60)


@pytest.mark.slow
def test_rewards_that_remember_and_warm_up_come_out_the_same_after_an_interruption(
    reasoning: ModelRef, train_job: Callable, run_stage: Callable, tmp_path: Path
) -> None:
    job = train_job(shaped(max_steps=6, max_completion_length=24, learning_rate=1e-4), reasoning, keep=2)
    whole = run_stage(job, tmp_path / "whole")
    means = [(whole / "checkpoints" / f"step-{step:06d}" / "rewards.json").read_text() for step in (2, 4, 6)]
    assert len(set(means)) == 3
    broken = interrupted(job, tmp_path / "broken", at=4)
    run_stage(job, broken)
    assert json.loads((broken / "result.json").read_text())["notes"]["resumed_at"] == 2
    assert (broken / "checkpoints" / "step-000006" / "rewards.json").read_text() == means[-1]
    assert all(torch.equal(value, weights(broken, 6)[name]) for name, value in weights(whole, 6).items())
    assert recorded(whole) == recorded(broken)
    logged = recorded(whole)[0]["metrics"].keys()
    assert {f"train/rewards/{name}/mean" for name in SHAPED} <= logged
    assert {"train/groups/all_right", "train/groups/all_wrong", "train/groups/length_only"} <= logged
    assert "train/frac_reward_zero_std" in logged


@pytest.mark.slow
def test_an_alarm_that_went_off_before_an_interruption_does_not_go_off_again(
    train_job: Callable, run_stage: Callable, tmp_path: Path
) -> None:
    job = train_job(grpo(max_steps=12), keep=6)
    whole = run_stage(job, tmp_path / "whole")
    broken = interrupted(job, tmp_path / "broken", at=12)
    run_stage(job, broken)
    alarms = [(line["step"], line["alarm"]) for line in recorded(whole) if "alarm" in line]
    assert (5, "no-spread") in alarms
    assert len(alarms) == len({name for _, name in alarms})
    assert recorded(whole) == recorded(broken)


@pytest.mark.parametrize("aggregation", ["sum_then_normalize", "normalize_then_sum"])
@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_what_influence_weighs_rollouts_by_is_trls_advantage(
    aggregation: str, scale: str, reasoning: ModelRef, train_job: Callable, tmp_path: Path
) -> None:
    rewards = {name: 1.0 if name == "format" else term for name, term in SHAPED.items()}
    rewards["longer"] = {**SHAPED["longer"], "warm_up": 0}
    arguments = {"multi_objective_aggregation": aggregation, "scale_rewards": scale, "max_completion_length": 24}
    stage = {**grpo(**arguments), "rewards": rewards}
    trainer = trainer_of(train_job(stage, reasoning), tmp_path)
    seen: list[Any] = []
    calculate = trainer._calculate_rewards
    trainer._calculate_rewards = lambda *given: seen.append(calculate(*given)) or seen[-1]
    trainer.model.train()
    batch = trainer._generate_and_score_completions([trainer.train_dataset[i // 4] for i in range(8)])
    parts = seen[0].reshape(2, 4, len(rewards)).double().numpy()
    weighed = aggregated(parts, trainer.reward_weights.double().numpy(), stage["trainer"]).ravel()
    assert abs(weighed).max() > 0.1
    assert weighed == pytest.approx(batch["advantages"].double().numpy(), abs=1e-4)


class Killed(Exception):
    """Stands for SIGKILL: nothing of the stage runs after it."""


def interrupted(job: Train, out: Path, at: int) -> Path:
    """A stage that dies at a measurement, after checkpoints at the steps before."""
    from holdfast.training.stage import train

    out.mkdir()
    processor = load_processor(job.start)
    validate = validating(job, processor)

    def until(model: Any, step: int) -> dict[str, float]:
        if step >= at:
            raise Killed
        return validate(model, step)

    with pytest.raises(Killed):
        train(job, out, Journal(out), until)
    return out


def recorded(out: Path) -> list[dict[str, Any]]:
    """Everything logged but what a clock said."""
    lines = [line for line in read_lines(out / "metrics.jsonl") if "metrics" in line]
    for line in lines:
        del line["time"]
        line["metrics"].pop("train/step_time", None)
    return lines


@pytest.mark.slow
def test_a_half_written_checkpoint_is_skipped_for_the_one_before(
    schooled: ModelRef, train_job: Callable, run_stage: Callable, tmp_path: Path
) -> None:
    job = train_job({**sft(max_steps=6)}, schooled, keep=2)
    whole = run_stage(job, tmp_path / "whole")
    broken = interrupted(job, tmp_path / "broken", at=6)
    last = broken / "trainer" / "checkpoint-4" / "optimizer.pt"
    last.write_bytes(last.read_bytes()[:-100])
    run_stage(job, broken)
    assert json.loads((broken / "result.json").read_text())["notes"]["resumed_at"] == 2
    assert all(torch.equal(value, weights(broken, 6)[name]) for name, value in weights(whole, 6).items())
    assert recorded(whole) == recorded(broken)


def test_accumulated_steps_learn_the_same_as_one_batch(
    schooled: ModelRef, train_job: Callable, run_stage: Callable, tmp_path: Path
) -> None:
    whole = run_stage(train_job(sft(per_device_train_batch_size=8, max_grad_norm=0.0), schooled), tmp_path / "whole")
    parts = run_stage(
        train_job(sft(per_device_train_batch_size=2, gradient_accumulation_steps=4, max_grad_norm=0.0), schooled),
        tmp_path / "parts",
    )
    start = load_file(Path(schooled.path) / "model.safetensors")
    for name, value in weights(whole).items():
        moved = (value - start[name]).norm()
        assert (value - weights(parts)[name]).norm() <= 0.02 * moved + 1e-9, name


def test_only_completion_tokens_are_learned(train_job: Callable, tmp_path: Path) -> None:
    trainer = trainer_of(train_job(sft()), tmp_path)
    batch = next(iter(trainer.get_train_dataloader()))
    tokenizer = trainer.processing_class.tokenizer
    for labels in batch["labels"]:
        text = tokenizer.decode(labels[labels != -100])
        assert text.startswith("<answer>")
        assert text.endswith("</answer><|im_end|>")


def test_every_arm_sees_the_same_prompts_and_images(train_job: Callable, processor: Any, tmp_path: Path) -> None:
    supervised = trainer_of(train_job(sft()), tmp_path / "sft").train_dataset
    reinforced = trainer_of(train_job(grpo()), tmp_path / "grpo").train_dataset
    for ours, theirs in zip((supervised[place] for place in range(8)), reinforced.select(range(8)), strict=True):
        same = conversation(processor, ours["row"])
        assert same["prompt"] == theirs["prompt"]
        assert [image.tobytes() for image in same["images"]] == [image.tobytes() for image in theirs["images"]]


def test_a_lora_adapter_gives_the_same_logits_when_it_is_loaded_again(
    schooled: ModelRef, train_job: Callable, run_stage: Callable, tmp_path: Path
) -> None:
    stage = {**sft(learning_rate=1e-2), "lora": LORA}
    out = run_stage(train_job(stage, schooled), tmp_path)
    place = out / "checkpoints" / "step-000004"
    assert not (place / "model.safetensors").exists()
    adapter = load_file(place / "adapter_model.safetensors")
    assert adapter
    assert not any("visual" in name for name in adapter)
    logged = json.loads((out / "result.json").read_text())["metrics"]["validation/prior/color/logprob"]
    again = ModelRef(path=str(place), digest="lora", adapter_of=schooled)
    validate = validating(train_job(stage, schooled), load_processor(again))
    assert logged == pytest.approx(validate(load_model(again), 4)["validation/prior/color/logprob"], abs=1e-5)


def test_the_kl_reference_of_a_second_stage_is_the_model_it_starts_from(
    schooled: ModelRef, train_job: Callable, run_stage: Callable, tmp_path: Path
) -> None:
    lora = {**sft(learning_rate=1e-2), "lora": LORA}
    out = run_stage(train_job(lora, schooled), tmp_path / "first")
    merged = ModelRef(path=str(out / "checkpoints" / "step-000004"), digest="lora", adapter_of=schooled)
    trainer = trainer_of(train_job(grpo(), merged), tmp_path / "second")
    start = trainer.model.state_dict()
    reference = trainer.ref_model.state_dict()
    assert all(torch.equal(start[name], reference[name]) for name in start)


def test_no_placeholder_token_is_ever_sampled(schooled: ModelRef, train_job: Callable, tmp_path: Path) -> None:
    trainer = trainer_of(train_job(grpo(), schooled), tmp_path)
    config = trainer.model.config
    assert set(trainer.generation_config.suppress_tokens) == {
        config.image_token_id,
        config.video_token_id,
        config.vision_start_token_id,
        config.vision_end_token_id,
    }


def test_asking_along_the_way_changes_no_training(
    schooled: ModelRef, train_job: Callable, run_stage: Callable, tmp_path: Path
) -> None:
    often = run_stage(train_job(grpo(), schooled, keep=1), tmp_path / "often")
    never = run_stage(train_job(grpo(), schooled), tmp_path / "never")
    assert all(torch.equal(value, weights(never)[name]) for name, value in weights(often).items())
    shutil.rmtree(often)


@pytest.mark.parametrize(
    "case",
    [
        ({}, False, False),
        ({}, True, True),
        ({"gradient_checkpointing": False}, True, False),
        ({"gradient_checkpointing": True}, False, True),
        ({"activation_checkpointing": True}, False, True),
    ],
    ids=str,
)
@pytest.mark.parametrize("method", [sft, grpo])
def test_a_large_models_activations_are_computed_again_unless_the_stage_says_otherwise(
    method: Callable[..., dict[str, Any]],
    case: tuple[dict[str, bool], bool, bool],
    train_job: Callable[..., Train],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the layers themselves: arguments that transformers does not read any more would change nothing there."""
    said, large, computed_again = case
    monkeypatch.setattr("holdfast.training.stage.LARGE", 1 if large else 10**9)
    made = train_job(method(max_steps=1, **said))
    processor = load_processor(made.start)
    trainer = build(made, processor, tmp_path, StageCallback(tmp_path, Journal(tmp_path), lambda *_: {}, processor))
    trainer.train()
    layers = [one for one in trainer.model.modules() if isinstance(one, GradientCheckpointingLayer)]
    assert layers
    assert {layer.gradient_checkpointing for layer in layers} == {computed_again}
