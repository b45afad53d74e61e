"""Stages of one small training job, run and looked at in a store."""

import time
from pathlib import Path

import pytest

from holdfast.config.jobs import Train
from holdfast.config.methods import SFT, Answers
from holdfast.config.refs import DataRef, FileRef, ModelRef
from tasks import worker
from tasks.stage import Attempt, Context, Position, StageRun
from tasks.tracking import open_store

BASE = ModelRef(path="model", digest="m")


def job(root: Path, seed: int = 0, threads: int = 1) -> Train:
    return Train(
        seed=seed,
        threads=threads,
        stage=SFT(method="sft", source=Answers()),
        start=BASE,
        base=BASE,
        data=DataRef(path=root / "data", digest="d"),
        questions=FileRef(path=root / "data" / "target-train.parquet", digest="q"),
        limit=96,
    )


def run(context: Context, seed: int = 0, threads: int = 1) -> StageRun:
    return Attempt(job(context.root, seed, threads), context, Position("answers", 1)).run()


def history(context: Context, run_id: str) -> dict[str, list[int]]:
    """Steps of every metric, in the order they were logged."""
    client = open_store(context.root).client
    names = client.get_run(run_id).data.metrics
    return {name: [m.step for m in client.get_metric_history(run_id, name)] for name in names}


def statuses(context: Context) -> list[str]:
    runs = open_store(context.root).search("tags.`holdfast.arm` = 'answers'")
    return [r.info.status for r in runs]


def use(monkeypatch: pytest.MonkeyPatch, entry: str) -> None:
    monkeypatch.setattr(worker, "ENTRY", f"stage_entries:{entry}")


def wait_for(condition, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
