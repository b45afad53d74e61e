"""What learns is float32 in every precision, and what has learned nothing scores as its base did."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from tiny_jobs import REFERENCES, evaluate_job

from holdfast.config.jobs import Train
from holdfast.config.measurement import Evaluation
from holdfast.config.refs import DataRef, FileRef, ModelRef
from holdfast.evaluation.records import Record, read_records
from holdfast.evaluation.stage import evaluate, validating
from holdfast.journal import Journal
from holdfast.models.load import load_model, load_processor, save_checkpoint
from holdfast.models.precision import base_dtype, computing_in, study_dtype, weight_dtype
from holdfast.training.callback import StageCallback
from holdfast.training.stage import build, machine_settings

LORA = {"r": 4, "target_modules": "all-linear"}
WAYS: dict[str, dict[str, Any] | None] = {
    "everything": None,
    "lora": LORA,
    "lora-and-copies": {**LORA, "target_modules": ["q_proj"], "modules_to_save": ["mlp"]},
    "lora-and-biases": {**LORA, "target_modules": ["q_proj"], "bias": "all"},
}
DTYPES = ("float32", "bfloat16", "float16", "auto")
FEW = {("bfloat16", "everything"), ("bfloat16", "lora-and-copies"), ("float16", "lora"), ("auto", "lora-and-biases")}
"""Every precision and every way once."""
LIMIT = 4


@pytest.fixture(scope="module")
def saved(tiny_model: ModelRef, tmp_path_factory: pytest.TempPathFactory) -> ModelRef:
    """The tiny model as most bases are given out: in bfloat16."""
    place = tmp_path_factory.mktemp("bfloat16") / "model"
    save_checkpoint(load_model(tiny_model).bfloat16(), load_processor(tiny_model), place)
    return ModelRef(path=str(place), digest="bfloat16")


@pytest.fixture(scope="module")
def evaluated_base(
    saved: ModelRef, tiny_data: DataRef, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Where the base's evaluation in a precision lies."""
    found: dict[str, Path] = {}

    def of(dtype: str) -> Path:
        if dtype not in found:
            found[dtype] = tmp_path_factory.mktemp(dtype)
            job = evaluate_job(tiny_data, saved, dtype=dtype, limit=LIMIT)
            evaluate(job, found[dtype], Journal(found[dtype]))
        return found[dtype]

    return of


@pytest.fixture
def job(saved: ModelRef, tiny_data: DataRef) -> Callable[[str, str], Train]:
    def make(dtype: str, way: str) -> Train:
        stage = {"method": "sft", "source": "answers", "lora": WAYS[way], "trainer": {"max_steps": 1}}
        questions = FileRef(path=tiny_data.path / "target-train.parquet", digest="")
        return Train(
            **{"stage": stage, "start": saved, "base": saved, "dtype": dtype, "data": tiny_data},
            **{"questions": questions, "limit": LIMIT, "evaluation": Evaluation(batch_size=8)},
        )

    return make


def records(out: Path, step: int) -> list[Record]:
    files = sorted((out / "records" / f"step-{step:06d}").glob("*.parquet"))
    return [record for file in files for record in read_records(file)]


@pytest.mark.parametrize(
    ("dtype", "way"),
    [pair if pair in FEW else pytest.param(*pair, marks=pytest.mark.slow) for pair in itertools.product(DTYPES, WAYS)],
)
def test_what_learns_is_float32_and_what_learned_nothing_scores_as_its_base(
    job: Callable[[str, str], Train],
    evaluated_base: Callable[[str], Path],
    tmp_path: Path,
    dtype: str,
    way: str,
) -> None:
    given, base = job(dtype, way), evaluated_base(dtype)
    processor = load_processor(given.start)
    trainer = build(
        given, processor, tmp_path, StageCallback(tmp_path, Journal(tmp_path), lambda model, step: {}, processor)
    )
    model: Any = trainer.model
    learning = {value.dtype for value in model.parameters() if value.requires_grad}
    assert learning == {torch.float32}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    now = validating(given, processor)(model.eval(), 0)
    unmoved = load_model(given.start, base_dtype(dtype, given.start))
    assert now == validating(given, processor)(unmoved, 0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    save_checkpoint(model, processor, tmp_path / "kept")
    beneath = given.start if WAYS[way] else None
    kept = ModelRef(path=str(tmp_path / "kept"), digest="kept", step=1, adapter_of=beneath)
    references = FileRef(path=base / REFERENCES, digest="")
    asked = evaluate_job(given.data, given.start, [kept], references, dtype=dtype, limit=LIMIT)
    (tmp_path / "asked").mkdir()
    evaluate(asked, tmp_path / "asked", Journal(tmp_path / "asked"))
    assert records(tmp_path / "asked", 1) == records(base, 0)
    assert set(pq.read_table(tmp_path / "asked" / "drift" / "step-000001.parquet")["kl"].to_pylist()) == {0.0}

    trainer.train()
    assert all(value.isfinite().all() for value in model.parameters())


def test_beneath_an_adapter_weights_stay_as_the_study_names_them(job: Callable[[str, str], Train]) -> None:
    kept = {(dtype, way): weight_dtype(job(dtype, way)) for dtype in DTYPES for way in ("everything", "lora")}
    assert {kept[dtype, "everything"] for dtype in DTYPES} == {"float32"}
    assert {dtype: kept[dtype, "lora"] for dtype in DTYPES} == {
        **{"float32": "float32", "bfloat16": "bfloat16", "float16": "float16"},
        "auto": "bfloat16",
    }


def test_the_bases_own_precision_is_that_of_all_later_stages(
    job: Callable[[str, str], Train], tiny_model: ModelRef, tmp_path: Path
) -> None:
    """What an earlier stage saved is float32, whatever its base was."""
    later = job("auto", "everything").model_copy(update={"start": tiny_model})
    assert study_dtype(later) == "bfloat16"
    gpu = machine_settings(later, torch.device("cuda"), tmp_path)
    assert (gpu["bf16"], gpu["fp16"]) == (True, False)
    assert not machine_settings(later, torch.device("cpu"), tmp_path)["bf16"]


def test_a_forward_pass_that_accelerate_wrapped_is_plain_while_it_is_measured(tiny_model: ModelRef) -> None:
    model = load_model(tiny_model)
    model.forward = lambda *_, **__: "wrapped"
    ids = torch.tensor([[5, 6]])
    with computing_in("bfloat16", model):
        assert model(ids).logits.dtype == torch.bfloat16
    assert model(ids) == "wrapped"
    assert model.dtype == torch.float32
