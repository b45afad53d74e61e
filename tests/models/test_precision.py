"""What learns is float32 in every precision, and what has learned nothing scores as its base did."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from holdfast.config.jobs import Drift, Evaluate, Train
from holdfast.config.measurement import Evaluation
from holdfast.config.refs import DataRef, FileRef, ModelRef
from holdfast.evaluation.drift import Pair, drift, read_references
from holdfast.evaluation.evaluator import Evaluator, asked
from holdfast.evaluation.generate import Reader
from holdfast.evaluation.records import measured as means
from holdfast.evaluation.stage import evaluate
from holdfast.journal import Journal, read_lines
from holdfast.models.load import load_model, load_processor, save_checkpoint
from holdfast.models.precision import computing_in, study_dtype, weight_dtype
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
EVALUATION = Evaluation(max_new_tokens=4, drift_prompts=4, batch_size=8)


@pytest.fixture(scope="module")
def saved(tiny_model: ModelRef, tmp_path_factory: pytest.TempPathFactory) -> ModelRef:
    """The tiny model as most bases are given out: in bfloat16."""
    place = tmp_path_factory.mktemp("bfloat16") / "model"
    save_checkpoint(load_model(tiny_model).bfloat16(), load_processor(tiny_model), place)
    return ModelRef(path=str(place), digest="bfloat16")


@pytest.fixture(scope="module")
def measured(
    saved: ModelRef, tiny_data: DataRef, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Path, dict[str, float]]]:
    """Where the base's evaluation in a precision lies, and its metrics."""
    found: dict[str, tuple[Path, dict[str, float]]] = {}

    def measure(dtype: str) -> tuple[Path, dict[str, float]]:
        if dtype not in found:
            out = tmp_path_factory.mktemp(dtype)
            job = Evaluate(model=saved, dtype=dtype, data=tiny_data, evaluation=EVALUATION)
            (out / "job.json").write_text(job.model_dump_json())
            evaluate(job, out, Journal(out))
            [metrics] = [line["metrics"] for line in read_lines(out / "metrics.jsonl") if "metrics" in line]
            (out / "result.json").write_text(json.dumps({"metrics": metrics}))
            found[dtype] = out, metrics
        return found[dtype]

    return measure


@pytest.fixture
def job(saved: ModelRef, tiny_data: DataRef, measured: Callable) -> Callable[[str, str], Train]:
    def make(dtype: str, way: str) -> Train:
        reference = FileRef(path=measured(dtype)[0] / "drift.parquet", digest="")
        stage = {"method": "sft", "source": "answers", "lora": WAYS[way], "trainer": {"max_steps": 1}}
        return Train(
            **{"stage": stage, "start": saved, "dtype": dtype, "data": tiny_data},
            **{"reference": reference, "evaluation": EVALUATION},
        )

    return make


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_learns_is_float32_and_what_learned_nothing_scores_as_its_base(
    job: Callable[[str, str], Train], measured: Callable, tmp_path: Path, dtype: str, way: str
) -> None:
    given, (_, base) = job(dtype, way), measured(dtype)
    processor = load_processor(given.start)
    trainer = build(
        given, processor, tmp_path, StageCallback(tmp_path, Journal(tmp_path), lambda model, step: {}, processor)
    )
    model: Any = trainer.model
    learning = {value.dtype for value in model.parameters() if value.requires_grad}
    assert learning == {torch.float32}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    now = measurement(given, tmp_path, processor)(model.eval(), 0)
    assert {name: now[name] for name in base} == base
    assert now["kl/target"] == 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
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
