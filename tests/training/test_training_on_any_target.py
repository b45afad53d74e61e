"""Evaluation and both methods on targets that are no jigsaw, with larger images than the bundled world's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_jobs import shards

from holdfast.benchmarks.dataset import make_data
from holdfast.config.images import World
from holdfast.config.jobs import Drift, Evaluate, MakeData, Train
from holdfast.config.measurement import Evaluation
from holdfast.config.prior import Prior
from holdfast.config.refs import DataRef, FileRef, ModelRef
from holdfast.config.targets import Banner, Detection, Target

EVALUATION = Evaluation(batch_size=8)
COUNTS = {"train": 8, "validation": 1, "test": 4}
SFT = {"method": "sft", "source": "teacher", "trainer": {"max_steps": 1, "per_device_train_batch_size": 4}}
GRPO = {
    "method": "grpo",
    "trainer": {"max_steps": 1, "per_device_train_batch_size": 4, "num_generations": 2, "max_completion_length": 8},
}


@pytest.mark.parametrize(
    ("target", "stage"),
    [(Banner(benchmark="banner", **COUNTS), GRPO), (Detection(benchmark="detection", **COUNTS), SFT)],
    ids=["banner", "detection"],
)
def test_a_target_is_measured_and_learned(
    target: Target, stage: dict[str, Any], tiny_model: ModelRef, run_stage: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    prior = (Prior(benchmark="color", questions=2),)
    make_data(MakeData(images=World(), target=target, prior=prior), tmp_path / "data")
    data = DataRef(path=tmp_path / "data", digest="x")
    questions = FileRef(path=data.path / "target-train.parquet", digest="x")
    asked = (shards(data, target.benchmark, "target"), shards(data, "color", "prior"))
    drift = Drift(target=asked[0], prompts=2)
    evaluation = Evaluate(
        models=(tiny_model,), base=tiny_model, benchmarks=asked, limit=8, validation=32, batch_size=8, drift=drift
    )
    base = run_stage(evaluation, tmp_path / "base")
    start: dict[str, Any] = {"start": tiny_model, "base": tiny_model, "data": data, "questions": questions}
    out = run_stage(Train(stage=stage, limit=8, evaluation=EVALUATION, **start), tmp_path / "out")
    for place, split in ((base, ""), (out, "validation/")):
        metrics = json.loads((place / "result.json").read_text())["metrics"]
        names = {f"{split}target/{target.benchmark}/{kind}" for kind in ("accuracy", "score", "unparsed")}
        assert names <= metrics.keys()
        assert all(0 <= metrics[name] <= 1 for name in names)
