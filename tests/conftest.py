"""A tiny model of the real architecture and a tiny study's data, made once for all tests, offline."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.config.refs import DataRef, FileRef, ModelRef

# As in a stage's process.
os.environ.setdefault("DISABLE_MLFLOW_INTEGRATION", "TRUE")
LONG = ("test_study.py", "test_training.py", "test_faults.py", "test_stage.py", "test_data.py")
"""Files that come first: one at the end would leave the other cores idle."""
EVALUATION = {"batch_size": 8, "max_new_tokens": 16, "drift_prompts": 4}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long files first, and all others in their order."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture(scope="session")
def processor() -> Any:
    """The bundled model's processor."""
    from holdfast.models.tiny.processor import build_processor

    return build_processor()


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> DataRef:
    """Shards of 24 training puzzles and a few questions of two prior benchmarks."""
    from holdfast.benchmarks.dataset import make_data
    from holdfast.config.images import World
    from holdfast.config.jobs import MakeData
    from holdfast.config.prior import Prior
    from holdfast.config.targets import Jigsaw

    path = tmp_path_factory.mktemp("data")
    prior = tuple(Prior(benchmark=name, questions=5, validation=5) for name in ("color", "count"))
    make_data(MakeData(images=World(), target=Jigsaw(train=24, validation=6, test=6), prior=prior), path)
    return DataRef(path=path, digest="tiny")


@pytest.fixture(scope="session")
def tiny_model(processor: Any, tmp_path_factory: pytest.TempPathFactory) -> ModelRef:
    """A checkpoint with random weights: hidden 64, one layer."""
    import torch

    from holdfast.models.load import save_checkpoint
    from holdfast.models.tiny.build import build_model

    path = tmp_path_factory.mktemp("model") / "tiny"
    torch.manual_seed(0)
    save_checkpoint(build_model(processor, hidden=64, layers=1), processor, path)
    return ModelRef(path=str(path), digest="tiny")


@pytest.fixture(scope="session")
def run_stage() -> Callable[..., Path]:
    """Run a job as a stage's process does, in this one; returns its directory."""
    from holdfast.stages.process import run_job

    def run(job: Any, out: Path) -> Path:
        out.mkdir(parents=True, exist_ok=True)
        (out / "job.json").write_text(job.model_dump_json())
        run_job(str(out / "job.json"), str(out))
        return out

    return run


@pytest.fixture(scope="session")
def evaluated(
    tiny_model: ModelRef, tiny_data: DataRef, run_stage: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The base evaluation of the tiny model."""
    from tiny_jobs import evaluate_job

    return run_stage(evaluate_job(tiny_data, tiny_model), tmp_path_factory.mktemp("evaluated"))


@pytest.fixture(scope="session")
def train_job(tiny_model: ModelRef, tiny_data: DataRef) -> Callable[..., Any]:
    """A Train job from a stage's config; `keep` says when checkpoints are kept."""
    from holdfast.config.jobs import Train
    from holdfast.config.measurement import Evaluation

    def make(stage: dict[str, Any], start: ModelRef = tiny_model, keep: float = 1000, seed: int = 0) -> Train:
        return Train(
            stage=stage,
            start=start,
            base=tiny_model,
            data=tiny_data,
            questions=FileRef(path=tiny_data.path / "target-train.parquet", digest="tiny"),
            limit=16,
            keep=keep,
            evaluation=Evaluation(**EVALUATION),
            seed=seed,
        )

    return make


@pytest.fixture(scope="session")
def schooled(
    train_job: Callable[..., Any], run_stage: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> ModelRef:
    """The tiny model after it has learned what an answer looks like, so that its samples earn different rewards."""
    trainer = {
        "max_steps": 50,
        "per_device_train_batch_size": 16,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
    }
    stage = {"method": "sft", "source": "answers", "freeze": [], "trainer": trainer}
    out = run_stage(train_job(stage), tmp_path_factory.mktemp("schooled"))
    return ModelRef(path=str(out / "checkpoints" / "step-000050"), digest="schooled", step=50)
