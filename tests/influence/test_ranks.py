"""Several processes select and trace as one: each measures batches, or checkpoints, and the first writes all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from rank_runs import together
from traces import trace_of

from holdfast.config.jobs import Select
from holdfast.config.measurement import Influence
from holdfast.config.results import Result


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [5, 24], ids=["five batches", "one batch"])
def test_two_processes_select_what_one_does(
    batch_size: int, train_job: Callable[..., Any], run_stage: Callable[..., Path], tmp_path: Path
) -> None:
    train = train_job({"method": "sft", "source": "teacher", "select": {"by": "direction", "keep": 0.5}})
    job = Select(train=train, data=train.data, influence=Influence(questions=4, batch_size=batch_size))
    one, two = run_stage(job, tmp_path / "one"), together(job, tmp_path / "two")
    expected, found = (pq.read_table(out / "samples.parquet").to_pylist() for out in (one, two))
    assert len(expected) == 12
    assert found == expected
    assert not [*two.glob("rank-*"), *two.glob("meeting-*")]


@pytest.mark.slow
@pytest.mark.parametrize(
    "stage",
    [
        {"method": "sft", "source": "answers"},
        {"method": "grpo", "trainer": {"num_generations": 4}},
    ],
    ids=["sft", "grpo"],
)
def test_two_processes_trace_what_one_does_to_the_bit(
    stage: dict[str, Any], train_job: Callable[..., Any], run_stage: Callable[..., Path], tmp_path: Path
) -> None:
    trainer = {"max_steps": 2, "per_device_train_batch_size": 4, "learning_rate": 1e-3, **stage.get("trainer", {})}
    train = train_job({**stage, "trainer": trainer}, keep=1).model_copy(update={"keep_moments": True})
    job = trace_of(run_stage(train, tmp_path / "train"))
    assert (len(job.kept), job.model_copy(update={"gpus": 8}).ranks) == (2, 3)
    one, two = run_stage(job, tmp_path / "one"), together(job, tmp_path / "two")
    for name in ("influence.parquet", "sources.parquet", "path.parquet"):
        expected, found = (pq.read_table(out / name).to_pylist() for out in (one, two))
        assert len(expected) > 0
        assert str(found) == str(expected), name
    told, again = (Result.model_validate_json((out / "result.json").read_text()) for out in (one, two))
    assert again.metrics == told.metrics
    assert again.notes == told.notes
    assert not [*two.glob("rank-*"), *two.glob("meeting-*")]
