"""A trace in parts of the parameters is the trace in all of them; layers, batches and precision can be chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from traces import trace_of

from holdfast.config.jobs import Train
from holdfast.config.measurement import Influence
from holdfast.errors import UserError
from holdfast.influence.engine import parameter
from holdfast.influence.engine.engine import Engine
from holdfast.influence.engine.gradients import selection
from holdfast.influence.parts import choose, measuring_in, parts_of, target_count
from holdfast.influence.samples import SampleEncoder, supervised_completions
from holdfast.influence.trace import trace
from holdfast.journal import Journal, read_lines
from holdfast.models.load import load_model

SETTINGS = Influence(samples=5, questions=4, batch_size=4)
STAGE = {
    "method": "sft",
    "source": "teacher",
    "trainer": {"max_steps": 4, "learning_rate": 1e-3, "per_device_train_batch_size": 4},
}


@pytest.fixture(scope="module")
def trained(train_job: Any, run_stage: Any, tmp_path_factory: Any) -> Path:
    job = train_job(STAGE, keep=2).model_copy(update={"keep_moments": True})
    return run_stage(job, tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def whole(trained: Path, tmp_path_factory: Any) -> Path:
    return traced(trained, tmp_path_factory.mktemp("whole"), SETTINGS)


def traced(trained: Path, out: Path, settings: Influence) -> Path:
    (out / "result.json").write_text("{}")
    notes = trace(trace_of(trained, influence=settings), out, Journal(out), None)
    (out / "notes.txt").write_text(str(notes))
    return out


def rows(out: Path) -> pd.DataFrame:
    return pq.read_table(out / "influence.parquet").to_pandas().set_index(["step", "sample", "block"]).sort_index()


def logged(out: Path) -> dict[tuple[int, str], float]:
    lines = [line for line in read_lines(out / "metrics.jsonl") if "metrics" in line]
    return {(line["step"], name): value for line in lines for name, value in line["metrics"].items()}


def agree(found: dict[Any, float], wanted: dict[Any, float], rel: float) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, rel=rel, abs=1e-9), name


@pytest.mark.parametrize(
    "changes",
    [{"memory_gb": 2e-3, "batch_tokens": 200}, pytest.param({"memory_gb": 1e-4}, marks=pytest.mark.slow)],
)
def test_parts_and_batches_of_any_size_give_what_all_at_once_gives(
    trained: Path, whole: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    out = traced(trained, tmp_path, SETTINGS.model_copy(update=changes))
    assert "measured in parts" in (out / "notes.txt").read_text()
    found, wanted = rows(out), rows(whole)
    assert list(found.index) == list(wanted.index)
    numbers = wanted.select_dtypes("number").columns
    assert np.allclose(found[numbers], wanted[numbers], rtol=1e-4, atol=1e-7, equal_nan=True)
    # A debiased cosine, and what is divided by a dot product, are quotients of small differences; the noise that the
    # kernel is measured with is drawn anew for every batch.
    shaky = ("debiased", "exchange", *(("kernel", "kernel_per_token") if "batch_tokens" in changes else ()))
    steady = {name: value for name, value in logged(whole).items() if not name[1].endswith(shaky)}
    agree({name: logged(out)[name] for name in steady}, steady, 2e-3)
    paths = [pq.read_table(place / "path.parquet").to_pandas() for place in (out, whole)]
    assert np.allclose(*(path[["measured", "first_order", "trapezoid"]] for path in paths), rtol=1e-3, atol=1e-6)


@pytest.mark.slow
def test_chosen_layers_are_measured_as_they_are_among_all(trained: Path, whole: Path, tmp_path: Path) -> None:
    out = traced(trained, tmp_path, SETTINGS.model_copy(update={"layers": ("layers.0.",)}))
    found, wanted = rows(out), rows(whole).query("block == 'layers.0'")
    assert list(found.index) == list(wanted.index)
    assert np.allclose(found["dot/color/a"], wanted["dot/color/a"], rtol=1e-5)


@pytest.mark.slow
def test_half_precision_is_near_and_what_lies_between_checkpoints_is_exact(
    trained: Path, whole: Path, tmp_path: Path
) -> None:
    out = traced(trained, tmp_path, SETTINGS.model_copy(update={"dtype": "bfloat16"}))
    found, wanted = (place.groupby(["step", "sample"]).sum(numeric_only=True) for place in (rows(out), rows(whole)))
    assert np.allclose(found.norm2, wanted.norm2, rtol=0.1)
    paths = [pq.read_table(place / "path.parquet").to_pandas() for place in (out, whole)]
    error = np.abs(paths[0].first_order - paths[1].first_order).mean()
    # Displacements of 1e-3 that were rounded to bfloat16 would be wrong by more than themselves.
    assert error < 0.2 * np.abs(paths[1].first_order).mean()


def test_a_layer_that_does_not_learn_is_refused(tiny_model: Any) -> None:
    model = load_model(tiny_model)
    with pytest.raises(
        UserError, match=r"influence\.layers: the name of no parameter that learns contains `layers\.9`"
    ):
        choose(model, ["layers.9"])


def test_parts_hold_whole_blocks_and_no_more_than_fits_unless_one_block_does(tiny_model: Any) -> None:
    model = load_model(tiny_model)
    everything = [name for name, _ in selection(model).items()]
    assert parts_of(model, SETTINGS, 3) == [sorted(everything, key=parts_of(model, SETTINGS, 3)[0].index)]
    size = sum(value.numel() for value in selection(model).values())
    half = SETTINGS.model_copy(update={"memory_gb": 2 * 4 * target_count(SETTINGS, 3) * size / 2 / 1e9})
    parts = parts_of(model, half, 3)
    assert 2 <= len(parts) <= 4
    assert sorted(name for part in parts for name in part) == sorted(everything)
    with measuring_in(model, parts[0]):
        assert list(selection(model)) == [name for name in everything if name in parts[0]]
    assert list(selection(model)) == everything


def test_targets_that_are_moved_some_at_a_time_give_the_same(
    trained: Path, tiny_model: Any, processor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU, targets lie in the host's memory; here both are the same device, so the moving is asked for."""
    train = Train.model_validate_json((trained / "job.json").read_text())
    model, encoder = load_model(tiny_model), SampleEncoder(processor, 3)
    samples = encoder.samples(supervised_completions(train, 3))
    [batch] = encoder.batches(samples, model.device)
    torch.manual_seed(0)
    targets = [{name: torch.randn_like(value) for name, value in selection(model).items()} for _ in range(5)]
    wanted = Engine(model, targets).measure(batch)
    monkeypatch.setattr(parameter, "MOVED_AT_ONCE", 1)
    monkeypatch.setattr(parameter.ParameterGradients, "_elsewhere", lambda self, where: True)
    found = Engine(model, targets).measure(batch)
    torch.testing.assert_close(found.dots, wanted.dots, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(found.norms2, wanted.norms2)


def test_batches_keep_the_order_and_the_budget(processor: Any, trained: Path) -> None:
    train = Train.model_validate_json((trained / "job.json").read_text())
    samples = SampleEncoder(processor, 8).samples(supervised_completions(train, 8))
    longest = max(len(one.encoded["input_ids"]) + len(one.completion) for one in samples)
    parts = list(SampleEncoder(processor, 8, 2 * longest).parts(samples))
    assert [one.id for part in parts for one in part] == [one.id for one in samples]
    assert {len(part) for part in parts} == {2}
    assert [len(part) for part in SampleEncoder(processor, 8, 1).parts(samples)] == [1] * 8
    assert [len(part) for part in SampleEncoder(processor, 3).parts(samples)] == [3, 3, 2]
