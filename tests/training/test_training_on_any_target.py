"""Evaluation and both methods on targets that are no jigsaw, with larger images than the bundled world's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.benchmarks.dataset import make_data
from holdfast.config.images import World
from holdfast.config.jobs import Evaluate, MakeData, Train
from holdfast.config.measurement import Evaluation
from holdfast.config.prior import Prior
from holdfast.config.refs import DataRef, FileRef, ModelRef
from holdfast.config.targets import Banner, Detection, Target

EVALUATION = Evaluation(every=1000, batch_size=8, max_new_tokens=8, drift_prompts=2)
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
    base = run_stage(Evaluate(model=tiny_model, data=data, evaluation=EVALUATION), tmp_path / "base")
    reference = FileRef(path=base / "drift.parquet", digest="x")
    job = Train(stage=stage, start=tiny_model, data=data, reference=reference, evaluation=EVALUATION)
    out = run_stage(job, tmp_path / "out")
    for place in (base, out):
        metrics = json.loads((place / "result.json").read_text())["metrics"]
        names = {f"target/{target.benchmark}/{kind}" for kind in ("accuracy", "score", "unparsed")}
        assert names <= metrics.keys()
        assert all(0 <= metrics[name] <= 1 for name in names)
