"""Several processes select as one: each measures a part of the batches, and the first writes what was kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from rank_runs import together

from holdfast.config.jobs import Select
from holdfast.config.measurement import Influence


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
