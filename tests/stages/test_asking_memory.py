"""What asking takes, by arithmetic: near what torch allocates while a model reads, writes and scores."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from allocated import peak
from PIL import Image

from holdfast.benchmarks import catalog
from holdfast.data.shards import Question
from holdfast.evaluation.generate import Reader, Sampling, generate, score
from holdfast.models.shape import shape_of
from holdfast.models.tiny.build import build_model
from holdfast.stages import needs
from holdfast.stages.asking import batch_memory
from holdfast.stages.needs import Batch

ROWS = 8
FACTOR = 1.4
"""Between arithmetic and measurement, either way."""


def questions(side: int) -> list[Question]:
    """With pictures of so many pixels across."""
    picture = io.BytesIO()
    Image.effect_noise((side, side), 50).convert("RGB").save(picture, "PNG")
    asked = catalog.prior_questions("count", ROWS, 0, "validation")
    return [one._replace(images=(picture.getvalue(),)) for one in asked]


@pytest.mark.parametrize(("side", "hidden", "limit"), [(256, 512, 4), (32, 256, 16), (32, 256, 96)])
def test_a_batch_by_arithmetic_is_near_what_reading_writing_and_scoring_allocate(
    processor: Any, side: int, hidden: int, limit: int
) -> None:
    """Of large pictures, whose tower takes most; of short answers, and of long ones."""
    torch.manual_seed(0)
    model = build_model(processor, hidden=hidden, layers=4).eval().requires_grad_(False)
    reader = Reader(processor, ROWS)
    prompts = reader.encode(questions(side))
    given, least = [[5] * limit] * ROWS, {"min_new_tokens": limit}
    generate(model, reader, prompts, Sampling(2))
    written = peak(lambda: generate(model, reader, prompts, Sampling(limit, settings=least)))
    scored = peak(lambda: score(model, reader, prompts, given))
    length = max(len(one["input_ids"]) for one in prompts)
    patches = max(int(one["image_grid_thw"].prod(-1).sum()) for one in prompts)
    batch = Batch(ROWS, length, limit, patches, ROWS)
    expected = batch_memory(shape_of(model), needs.FLOAT32, batch)
    assert expected / FACTOR < max(written, scored) < expected * FACTOR
