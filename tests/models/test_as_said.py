"""How a study says that its model is read and kept: bounds of pixels, attention, and the precision of kept weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import made
from PIL import Image
from safetensors.torch import load_file

from holdfast.benchmarks.catalog import prior_questions
from holdfast.config.model import Model
from holdfast.config.refs import ModelRef
from holdfast.data.shards import Question, png
from holdfast.errors import UserError
from holdfast.models.base_ref import reference
from holdfast.models.encode import encode
from holdfast.models.load import load_model, load_processor, save_checkpoint


def saved(name: str, place: Path) -> str:
    model, processor = made(name)
    save_checkpoint(model, processor, place / name)
    return str(place / name)


def image_tokens(processor: Any) -> int:
    picture = png(Image.new("RGB", (280, 280)))
    question = Question("0", "0", (picture,), "what?", "", "", "", "")
    [row] = encode(processor, [question])
    return int((row["input_ids"] == processor.image_token_id).sum())


@pytest.mark.parametrize(("name", "tokens"), [("qwen2_5_vl", 256), ("qwen3_vl", 196)])
def test_a_question_in_plain_words_shows_a_picture_that_can_be_seen(name: str, tokens: int) -> None:
    _, processor = made(name)
    for benchmark in ("color", "digits"):
        [row] = encode(processor, list(prior_questions(benchmark, 1, 0, plain=True)))
        assert int((row["input_ids"] == processor.image_token_id).sum()) == tokens


def test_images_are_bounded_and_checkpoints_of_a_training_stay_so(tmp_path: Path) -> None:
    path = saved("qwen2_5_vl", tmp_path)
    free, bounded, enlarged = (
        load_processor(reference(Model(path=path, **said)))
        for said in ({}, {"max_pixels": 28 * 28 * 16}, {"min_pixels": 28 * 28 * 400})
    )
    assert image_tokens(free) == 100
    assert image_tokens(bounded) == 16
    assert image_tokens(enlarged) >= 400
    bounded.save_pretrained(tmp_path / "qwen2_5_vl")
    assert image_tokens(load_processor(ModelRef(path=path, digest=""))) == 16


@pytest.mark.parametrize(
    ("name", "said", "words"),
    [
        (
            "llava",
            {"max_pixels": 10_000},
            r"model\.max_pixels: .* in sizes of its own \(CLIPImageProcessor",
        ),
        ("qwen2_5_vl", {"min_pixels": 10**9}, r"model\.min_pixels: 1000000000 is more than the most"),
    ],
)
def test_bounds_that_cannot_be_are_refused(tmp_path: Path, name: str, said: dict[str, int], words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_processor(reference(Model(path=saved(name, tmp_path), **said)))


def test_attention_is_what_the_study_says_or_refused(tiny_model: ModelRef) -> None:
    model = load_model(tiny_model.model_copy(update={"attention": "eager"}))
    assert model.config._attn_implementation == "eager"
    assert load_model(tiny_model).config._attn_implementation == "sdpa"
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match=r"model\.attention: flash_attention_2 is not to be had here"):
            load_model(tiny_model.model_copy(update={"attention": "flash_attention_2"}))


@pytest.mark.parametrize("lora", [None, pytest.param({"r": 2, "target_modules": "all-linear"}, marks=pytest.mark.slow)])
def test_kept_weights_are_rounded_and_the_training_goes_on_unrounded(
    train_job: Callable[..., Any], run_stage: Callable[..., Path], tmp_path: Path, lora: dict[str, Any] | None
) -> None:
    """The second kept step is the same whatever the first was kept in."""
    trainer = {"max_steps": 2, "per_device_train_batch_size": 2, "learning_rate": 1e-3}
    stage = {"method": "sft", "source": "answers", "trainer": trainer, "lora": lora}
    weights = {}
    for dtype in ("float32", "bfloat16"):
        job = train_job(stage, keep=1).model_copy(update={"keep_dtype": dtype})
        out = run_stage(job, tmp_path / dtype)
        [file] = (out / "checkpoints" / "step-000002").glob("*.safetensors")
        weights[dtype] = load_file(file)
    assert {str(value.dtype) for value in weights["bfloat16"].values()} == {"torch.bfloat16"}
    for name, value in weights["float32"].items():
        assert torch.equal(value.bfloat16(), weights["bfloat16"][name])
