"""What a training needs by arithmetic: against published numbers, and against what small trainings really took."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from published import without_weights

from holdfast.config.jobs import Train
from holdfast.config.methods import SFT, Answers
from holdfast.config.refs import DataRef, FileRef, ModelRef
from holdfast.config.study import Study
from holdfast.data.shards import read_questions
from holdfast.models.load import save_checkpoint
from holdfast.models.lora import adapted
from holdfast.models.shape import Shape, shape_of
from holdfast.models.tiny.build import build_model
from holdfast.stages import needs
from holdfast.stages.fit import Lengths, batch_of, method_of
from holdfast.stages.lengths import longest_prompt
from holdfast.stages.needs import Batch, Method, Precision
from holdfast.training.arguments import anywhere

GB = 1e9
MIXED = Precision(weights=needs.FLOAT32, compute=needs.HALF)
LORA = {"r": 64, "target_modules": "all-linear"}
SMALL = Batch(1, 600, 512)


def shape(name: str, **stage: Any) -> Shape:
    return shape_of(adapted(without_weights(name), SFT(method="sft", source=Answers(), **stage), 0))


def test_everything_in_mixed_precision_takes_sixteen_bytes_a_parameter() -> None:
    """As published for Qwen2.5-VL-7B: 8.3 billion parameters × 16 bytes ≈ 133 GB."""
    found = needs.memory(shape("Qwen/Qwen2.5-VL-7B-Instruct", freeze=[]), MIXED, SMALL, Method(checkpointing=True))
    assert found.fixed == 16 * 8_292_166_656
    assert round(found.fixed / GB) == 133


@pytest.mark.parametrize(
    ("name", "cards"), [("Qwen/Qwen2.5-VL-3B-Instruct", 24), ("Qwen/Qwen2.5-VL-7B-Instruct", 2 * 32)]
)
def test_an_adapter_fits_where_others_fit_one_for_reinforcement(name: str, cards: int) -> None:
    """EasyR1's table: with LoRA, 3B on one card of 24 GB, 7B on two of 32."""
    half = Precision(needs.HALF, needs.HALF)
    found = needs.memory(shape(name, lora=LORA), half, Batch(4, 600, 512, 1296, 32), Method(checkpointing=True))
    assert cards * GB / 3 < found.total < cards * GB


def test_everything_of_three_billion_takes_more_than_one_card_of_forty_and_less_than_four() -> None:
    """EasyR1's table: full mixed precision, 3B on four cards of 40 GB."""
    whole = shape("Qwen/Qwen2.5-VL-3B-Instruct", freeze=[])
    found = needs.memory(whole, MIXED, Batch(4, 600, 512, 1296, 32), Method(checkpointing=True, reference=True))
    assert 40 * GB < found.total < 4 * 40 * GB


def test_a_checkpoint_of_seven_billion_in_half_precision_takes_its_files_size() -> None:
    """16.6 GB on the Hub. With a moment for each that learns beside it, a step that is kept takes three times that."""
    one = shape("Qwen/Qwen2.5-VL-7B-Instruct", freeze=[])
    assert needs.disk(one, 1, needs.HALF, moments=False) == (16_584_333_312, 0)
    assert needs.disk(one, 2, needs.HALF, moments=True).kept == 2 * 3 * 16_584_333_312


def test_a_pass_takes_six_operations_a_parameter_and_token_and_eight_when_layers_are_computed_again() -> None:
    found = shape("Qwen/Qwen2.5-VL-3B-Instruct")
    batch = Batch(8, 16, 16)
    six, eight = (needs.operations(found, batch, Method(checkpointing=again)) for again in (False, True))
    text = found.parameters - found.vision
    assert six == pytest.approx(6 * text * batch.tokens, rel=0.06)
    assert eight / six == pytest.approx(8 / 6)


@pytest.fixture(scope="module")
def wide(processor: Any, tmp_path_factory: pytest.TempPathFactory) -> ModelRef:
    """A checkpoint of 60 million parameters."""
    path = tmp_path_factory.mktemp("wide") / "model"
    torch.manual_seed(0)
    save_checkpoint(build_model(processor, hidden=640, layers=10), processor, path)
    return ModelRef(path=str(path), digest="wide")


ROWS = 16
TRAINER = {"max_steps": 2, "per_device_train_batch_size": ROWS}
DRAWN = {**TRAINER, "num_generations": 8, "max_completion_length": 48, "generation_kwargs": {"min_new_tokens": 48}}
STAGES: dict[str, dict[str, Any]] = {
    "all": {"method": "sft", "source": "answers", "trainer": TRAINER},
    "computed again": {"method": "sft", "source": "answers", "trainer": {**TRAINER, "gradient_checkpointing": True}},
    "adapter": {
        "method": "sft",
        "source": "answers",
        "trainer": TRAINER,
        "lora": {"r": 8, "target_modules": "all-linear"},
    },
    "reinforced": {"method": "grpo", "trainer": {**DRAWN, "beta": 0.1, "gradient_checkpointing": True}},
}
FACTOR = 1.4
"""Between arithmetic and measurement, either way."""


@pytest.mark.slow
@pytest.mark.parametrize("way", STAGES)
def test_arithmetic_is_near_what_a_training_takes(
    wide: ModelRef, tiny_data: DataRef, processor: Any, tmp_path: Path, way: str
) -> None:
    stage = STAGES[way]
    questions = FileRef(path=tiny_data.path / "target-train.parquet", digest="")
    job = Train(stage=stage, start=wide, base=wide, data=tiny_data, questions=questions, limit=48)
    (tmp_path / "job.json").write_text(job.model_dump_json())
    (tmp_path / "out").mkdir()
    script = Path(__file__).parents[1] / "support" / "measured_memory.py"
    ran = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "job.json"), str(tmp_path / "out")], capture_output=True, text=True
    )
    [line] = [line for line in ran.stdout.splitlines() if line.startswith("MEASURED")] or [ran.stderr]
    measured = json.loads(line.removeprefix("MEASURED"))
    found = Shape(**measured["shape"])
    study = Study(name="s", arms={"a": [stage]})
    config = anywhere(job.stage, job.limit)
    prompt = longest_prompt(processor, read_questions(questions.path)).tokens
    batch = batch_of(config, Lengths(prompt, 12, 64))
    precision = Precision(needs.FLOAT32, needs.FLOAT32)
    expected = needs.memory(found, precision, batch, method_of(config, job.stage, study, found))
    assert expected.total / FACTOR < measured["peak"] < expected.total * FACTOR
