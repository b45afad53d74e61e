"""Several processes evaluate, sample and measure as one: the same rows in the same order."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from rank_runs import killed, together
from tiny_jobs import LIMIT, REFERENCES, evaluate_job, pass_at

from holdfast.config.jobs import Evaluate, FromFile, Predict, Sample
from holdfast.config.methods import Rollouts, TeacherFile
from holdfast.config.refs import DataRef, FileRef, ModelRef
from holdfast.data.shards import prior_shard


def tables(out: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of every table that a stage keeps."""
    names = [name for name in json.loads((out / "result.json").read_text())["files"] if name.endswith(".parquet")]
    return {name: pq.read_table(out / name).to_pylist() for name in names}


def assert_same(one: Path, other: Path) -> None:
    """All that is written and told; numbers may differ in their last digits."""
    expected, found = tables(one), tables(other)
    assert found.keys() == expected.keys()
    for name, rows in expected.items():
        assert len(found[name]) == len(rows) > 0
        for ours, theirs in zip(found[name], rows, strict=True):
            assert list(ours) == list(theirs)
            for column, value in theirs.items():
                assert ours[column] == (pytest.approx(value, rel=1e-4, abs=1e-5) if _real(value) else value), name
    told, again = (json.loads((out / "result.json").read_text()) for out in (one, other))
    assert again["metrics"] == pytest.approx(told["metrics"], rel=1e-4, abs=1e-5)
    assert again["notes"] == told["notes"]
    assert not [*other.glob("rank-*"), *other.glob("meeting-*")]


def _real(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, list) and bool(value) and isinstance(value[0], float))


@pytest.fixture(scope="module")
def checkpoints(tiny_data: DataRef, tiny_model: ModelRef, schooled: ModelRef, evaluated: Path) -> Evaluate:
    """Two models are asked an odd number of batches, and for samples whose batches two or four cannot share evenly."""
    unmoved = tiny_model.model_copy(update={"step": 7, "digest": "a copy"})
    references = FileRef(path=evaluated / REFERENCES, digest="samples of the base")
    asked = {"pass_at": pass_at(tiny_data, 1, 4), "batch_size": 12, "again": 5}
    return evaluate_job(tiny_data, tiny_model, [schooled, unmoved], references, **asked)


@pytest.fixture(scope="module")
def in_one(checkpoints: Evaluate, run_stage: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_stage(checkpoints, tmp_path_factory.mktemp("one"))


@pytest.mark.slow
def test_two_processes_evaluate_what_one_does(checkpoints: Evaluate, in_one: Path, tmp_path: Path) -> None:
    assert_same(in_one, together(checkpoints, tmp_path / "two"))


@pytest.mark.slow
def test_two_processes_draw_the_bases_samples_as_one_does(
    tiny_data: DataRef, tiny_model: ModelRef, evaluated: Path, tmp_path: Path
) -> None:
    two = together(evaluate_job(tiny_data, tiny_model), tmp_path / "two")
    assert len({tuple(row["tokens"]) for row in tables(two)[REFERENCES]}) == 4
    assert_same(evaluated, two)


@pytest.mark.slow
def test_more_processes_than_a_batch_has_prompts_evaluate_what_one_does(
    checkpoints: Evaluate, in_one: Path, tmp_path: Path
) -> None:
    assert_same(in_one, together(checkpoints, tmp_path / "four", 4))


@pytest.mark.slow
def test_a_killed_process_ends_all_and_the_same_command_goes_on(
    checkpoints: Evaluate, in_one: Path, tmp_path: Path
) -> None:
    killed(checkpoints, tmp_path / "out", 1, "records/step-000050/count.parquet")
    assert_same(in_one, together(checkpoints, tmp_path / "out"))


def sample_job(tiny_data: DataRef, model: ModelRef, shards: int = 1) -> Sample:
    """Samples of 24 prompts, or so many times."""
    questions = FileRef(path=tiny_data.path / "target-train.parquet", digest="tiny")
    return Sample(
        # So warm that a process writes longer than the other.
        source=Rollouts(arm="rft", keep="all", temperature=1.6, per_prompt=3 if shards == 1 else 1),
        model=model,
        base=model,
        data=tiny_data,
        questions=questions,
        replayed=(questions,) * shards,
        limit=LIMIT,
        batch_size=6 if shards == 1 else 100,
    )


@pytest.mark.slow
@pytest.mark.parametrize("shards", [1, 22], ids=["one chunk", "three chunks"])
def test_two_processes_sample_what_one_does(
    shards: int, schooled: ModelRef, tiny_data: DataRef, run_stage: Callable, tmp_path: Path
) -> None:
    job = sample_job(tiny_data, schooled, shards)
    one, two = run_stage(job, tmp_path / "one"), together(job, tmp_path / "two")
    assert len({row["completion"] for row in tables(one)["samples.parquet"]}) > 10
    assert_same(one, two)


def test_a_teachers_file_is_read_by_one_process(tiny_data: DataRef, schooled: ModelRef, tmp_path: Path) -> None:
    file = FromFile(file=FileRef(path=tmp_path, digest=""), settings=TeacherFile(path=tmp_path))
    assert sample_job(tiny_data, schooled).model_copy(update={"source": file, "gpus": 8}).ranks == 1


@pytest.mark.slow
def test_two_processes_measure_the_predictors_that_one_does(
    tiny_data: DataRef, tiny_model: ModelRef, schooled: ModelRef, run_stage: Callable, tmp_path: Path
) -> None:
    names = ("target-validation.parquet", prior_shard("color", "validation"))
    target, prior = ((FileRef(path=tiny_data.path / name, digest=name),) for name in names)
    asked = {"target": target, "prior": prior, "prompts": 5, "samples": 0, "limit": LIMIT, "batch_size": 4}
    job = Predict(models=(schooled,), base=tiny_model, **asked)
    assert_same(run_stage(job, tmp_path / "one"), together(job, tmp_path / "two"))
