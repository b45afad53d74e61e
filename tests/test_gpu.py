"""A GPU gives the same numbers twice, and the CPU's up to rounding: training, rewards, evaluation, influence."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from holdfast.config.jobs import Trace
from holdfast.config.measurement import Influence
from holdfast.config.refs import DataRef, ModelRef
from holdfast.config.results import Result

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")]
STEPS = {"max_steps": 2, "per_device_train_batch_size": 4, "learning_rate": 1e-3}
SFT = {"method": "sft", "source": "teacher", "trainer": STEPS}
GRPO = {"method": "grpo", "trainer": {**STEPS, "num_generations": 4, "max_completion_length": 16}}


@pytest.fixture
def trained(train_job: Callable[..., Any], run_stage: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    def run(stage: dict[str, Any], name: str, device: str = "cuda", dtype: str = "float32") -> Path:
        changes = {"device": device, "dtype": dtype, "keep_moments": True}
        return run_stage(train_job(stage, keep=2).model_copy(update=changes), tmp_path / name)

    return run


def metrics(out: Path) -> dict[str, float]:
    found = Result.model_validate_json((out / "result.json").read_text()).metrics
    return {name: value for name, value in found.items() if "runtime" not in name and "per_second" not in name}


@pytest.mark.parametrize("stage", [SFT, GRPO], ids=["sft", "grpo"])
def test_a_training_on_a_gpu_is_the_same_twice(stage: dict[str, Any], trained: Callable[..., Path]) -> None:
    first, again = metrics(trained(stage, "first")), metrics(trained(stage, "again"))
    assert all(math.isfinite(value) for value in first.values())
    assert {n: v for n, v in first.items() if "step_time" not in n} == {
        n: v for n, v in again.items() if "step_time" not in n
    }


def test_a_supervised_training_on_a_gpu_is_that_on_a_cpu_up_to_rounding(trained: Callable[..., Path]) -> None:
    here, there = metrics(trained(SFT, "gpu")), metrics(trained(SFT, "cpu", device="cpu"))
    for name in ("train/loss", "validation/prior/color/logprob"):
        assert here[name] == pytest.approx(there[name], rel=0.02, abs=1e-3), name


def test_half_precision_trains_with_finite_numbers(trained: Callable[..., Path]) -> None:
    assert all(math.isfinite(value) for value in metrics(trained(SFT, "half", dtype="bfloat16")).values())


def test_influence_on_a_gpu_is_that_on_a_cpu_up_to_rounding(
    trained: Callable[..., Path], run_stage: Callable[..., Path], tiny_data: DataRef, tmp_path: Path
) -> None:
    out = trained(SFT, "trained")
    result = json.loads((out / "result.json").read_text())
    kept = [ModelRef(path=str(out / c["path"]), digest=c["digest"], step=c["step"]) for c in result["checkpoints"]]
    job = Trace(
        train=json.loads((out / "job.json").read_text()),
        data=tiny_data,
        kept=tuple(kept),
        rates=(1e-3,) * len(kept),
        influence=Influence(samples=6, questions=4, batch_size=4),
    )
    found = []
    for device in ("cuda", "cpu"):
        place = job.model_copy(update={"device": device, "train": job.train.model_copy(update={"device": device})})
        found.append(metrics(run_stage(place, tmp_path / f"influence-{device}")))
    for name in ("dot", "cosine", "norm"):
        for full in [full for full in found[1] if full.endswith(f"/{name}")]:
            assert found[0][full] == pytest.approx(found[1][full], rel=0.02, abs=1e-4), full
