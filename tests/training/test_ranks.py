"""Several processes train as one: the same rows, rollouts and batches, and so the same weights up to rounding."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from rank_runs import killed, together
from safetensors.torch import load_file

from holdfast.config.jobs import Train
from holdfast.config.methods import GRPO, SFT
from holdfast.config.refs import ModelRef
from holdfast.errors import UserError
from holdfast.journal import read_lines
from holdfast.models.load import load_model, load_processor, save_checkpoint
from holdfast.training.arguments import share
from holdfast.training.sharded import require_shardable

SUPERVISED = {
    "max_steps": 4,
    "per_device_train_batch_size": 6,
    "gradient_accumulation_steps": 3,
    "learning_rate": 1e-3,
}
REINFORCED = {
    "max_steps": 4,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 2,
    "num_generations": 8,
    "num_iterations": 2,
    "learning_rate": 1e-3,
    "max_completion_length": 16,
    "beta": 0.05,
}


def sft(**more: Any) -> dict[str, Any]:
    return {"method": "sft", "source": "answers", "trainer": SUPERVISED} | more


def grpo(trainer: dict[str, Any] = REINFORCED) -> dict[str, Any]:
    near = {"kind": "length", "variant": "running-mean", "weight": 0.3}
    return {"method": "grpo", "trainer": trainer, "rewards": {"score": 1.0, "format": 0.5, "near": near}}


def distill() -> dict[str, Any]:
    """By a teacher that follows the model, in passes of unlike numbers of tokens."""
    sampled = {name: value for name, value in REINFORCED.items() if name != "beta"} | {"temperature": 1.5}
    return {"method": "distill", "teacher": {"kind": "demonstration", "ema": 0.5}, "trainer": sampled}


def weights(out: Path, step: int = 4) -> dict[str, torch.Tensor]:
    [file] = (out / "checkpoints" / f"step-{step:06d}").glob("*.safetensors")
    return load_file(file)


def metrics(out: Path) -> dict[tuple[int, str], float]:
    lines = read_lines(out / "metrics.jsonl")
    found = {(line["step"], name): value for line in lines for name, value in line.get("metrics", {}).items()}
    # Extremes are those of a pass, which is larger where several processes take it.
    return {at: value for at, value in found.items() if not at[1].endswith(("step_time", "low_min", "high_max"))}


def assert_same_training(one: Path, two: Path, step: int = 4) -> None:
    before, expected, found = weights(one, 2), weights(one, step), weights(two, step)
    assert found.keys() == expected.keys()
    moved = sum((expected[name] - before[name]).square().sum() for name in expected).sqrt()
    apart = sum((expected[name] - found[name]).square().sum() for name in expected).sqrt()
    assert moved > 1e-3
    assert apart <= 2e-3 * moved
    told, again = metrics(one), metrics(two)
    assert again.keys() == told.keys()
    for name, value in told.items():
        assert again[name] == pytest.approx(value, rel=1e-2, abs=1e-3), name


@pytest.fixture(scope="session")
def in_one(run_stage: Callable, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Train], Path]:
    """Where a training in one process lies."""
    return lambda job: run_stage(job, tmp_path_factory.mktemp("one"))


def test_two_processes_reinforce_what_one_does(
    schooled: ModelRef, train_job: Callable, in_one: Callable, tmp_path: Path
) -> None:
    job = train_job(grpo(), schooled, keep=2)
    one, two = in_one(job), together(job, tmp_path / "two")
    written = [pq.read_table(out / "completions.parquet").to_pylist() for out in (one, two)]
    assert [row["completion"] for row in written[1]] == [row["completion"] for row in written[0]]
    assert len({row["completion"] for row in written[0]}) > 4
    assert written[1] == written[0]
    assert_same_training(one, two)
    assert not [*two.glob("rank-*"), *two.glob("meeting-*")]


@pytest.fixture(scope="session")
def with_a_head(schooled: ModelRef, tmp_path_factory: pytest.TempPathFactory) -> ModelRef:
    """As models of 7B: the output layer is not the table of tokens."""
    model, processor = load_model(schooled, "float32", torch.device("cpu")), load_processor(schooled)
    model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone() * 0.9)
    path = tmp_path_factory.mktemp("untied") / "model"
    save_checkpoint(model, processor, path)
    return ModelRef(path=str(path), digest="untied")


DEEPSPEED = pytest.mark.skipif(find_spec("deepspeed") is None, reason="make test-zero3 has DeepSpeed")
UNMOORED = {name: value for name, value in REINFORCED.items() if name != "beta"}


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fsdp2", pytest.param("zero3", marks=DEEPSPEED)])
@pytest.mark.parametrize("head", [False, True], ids=["tied", "a head of its own"])
@pytest.mark.parametrize(
    "stage",
    [
        sft(freeze=[]),
        sft(),
        sft(trainer={**SUPERVISED, "gradient_checkpointing": True}),
        grpo(UNMOORED),
        grpo({**UNMOORED, "gradient_checkpointing": True}),
        distill(),
    ],
    ids=["all of it", "language", "language again", "grpo", "grpo again", "distilled"],
)
def test_parts_of_a_model_are_trained_as_the_whole_one_is(
    stage: dict[str, Any], head: bool, strategy: str, in_one: Callable, request: Any
) -> None:
    train_job = request.getfixturevalue("train_job")
    start = request.getfixturevalue("with_a_head" if head else "schooled")
    job = train_job(stage, start, keep=2).model_copy(update={"keep_moments": True})
    one, two = in_one(job), together(job, request.getfixturevalue("tmp_path") / "two", strategy=strategy)
    assert_same_training(one, two)
    expected, found = (load_file(out / "moments" / "step-000004.safetensors") for out in (one, two))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name] - value).norm() <= 1e-3 * value.norm() + 1e-12, name


@pytest.mark.slow
@pytest.mark.parametrize(
    "several",
    [
        (sft(freeze=[]), 2),
        (sft(), 3),
        (sft(lora={"r": 4, "target_modules": "all-linear"}), 2),
        ({**grpo(), "lora": {"r": 4, "target_modules": "all-linear"}}, 4),
        (distill(), 4),
    ],
    ids=["all of it", "whole passes each", "an adapter", "a group over four", "distilled"],
)
def test_several_processes_train_what_one_does(
    several: tuple[dict[str, Any], int], schooled: ModelRef, train_job: Callable, in_one: Callable, tmp_path: Path
) -> None:
    stage, gpus = several
    job = train_job(stage, schooled, keep=2)
    assert_same_training(in_one(job), together(job, tmp_path / "several", gpus))


@pytest.mark.slow
@pytest.mark.parametrize(
    "end",
    [
        (0, 2, "ddp", grpo(UNMOORED)),
        (1, 1, "ddp", grpo(UNMOORED)),
        (1, 4, "ddp", grpo(UNMOORED)),
        (1, 2, "fsdp2", grpo(UNMOORED)),
        (1, 4, "fsdp2", grpo(UNMOORED)),
        (1, 2, "fsdp2", distill()),
        pytest.param((1, 2, "zero3", grpo(UNMOORED)), marks=DEEPSPEED),
    ],
)
def test_a_killed_process_ends_all_and_the_same_command_goes_on(
    end: tuple[int, int, str, dict[str, Any]], schooled: ModelRef, train_job: Callable, in_one: Callable, tmp_path: Path
) -> None:
    rank, then, strategy, stage = end
    stage = stage | {"trainer": stage["trainer"] | {"max_steps": 12}}
    job = train_job(stage, schooled, keep=2).model_copy(update={"strategy": strategy})
    out = tmp_path / "two"
    killed(job, out, rank, "trainer/checkpoint-4/complete.json")
    together(job, out, then)
    assert json.loads((out / "result.json").read_text())["notes"]["resumed_at"] >= 4
    assert_same_training(in_one(job), out, 12)


@pytest.mark.parametrize(
    ("trainer", "ranks", "own"),
    [
        ({}, 2, (4, 1)),
        ({"gradient_accumulation_steps": 8}, 4, (8, 2)),
        ({"per_device_train_batch_size": 6, "gradient_accumulation_steps": 2}, 4, (3, 1)),
        ({"gradient_accumulation_steps": 4, "steps_per_generation": 2}, 4, (4, 2, 1)),
        ({"gradient_accumulation_steps": 4, "generation_batch_size": 16}, 4, (4, 2)),
    ],
)
def test_ranks_share_the_passes_of_a_step_and_then_the_rows_of_a_pass(
    trainer: dict[str, int], ranks: int, own: tuple[int, ...]
) -> None:
    assert tuple(share(GRPO(method="grpo", trainer=trainer), ranks).values()) == own


def test_what_ranks_cannot_share_is_refused() -> None:
    stage = SFT(method="sft", source="answers", trainer={"per_device_train_batch_size": 6})
    with pytest.raises(UserError, match=r"gpus 4 cannot share per_device_train_batch_size 6 × grad.*multiple of 4"):
        share(stage, 4)


def test_what_cannot_be_trained_in_parts_is_refused() -> None:
    adapter = SFT(method="sft", source="answers", lora={"r": 4})
    with pytest.raises(UserError, match=r"compute\.strategy: fsdp2 trains whole models .*; set it to ddp"):
        require_shardable("fsdp2", "float32", adapter, None)
    with pytest.raises(UserError, match=r"compute\.strategy: .* set trainer\.beta to 0"):
        require_shardable("fsdp2", "float32", GRPO(method="grpo", trainer={"beta": 0.05}), None)
