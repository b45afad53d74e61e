"""Images that a frozen tower has seen are not looked at again, and the model says the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from holdfast.models import image_feature_cache as module
from holdfast.models.image_feature_cache import ImageFeatures, cached_image_features
from holdfast.models.prompt_sharing import shared_prompts
from holdfast.models.tiny.build import build_model

SIZES = ((64, 64), (64, 128), (128, 64))
COLORS = ("red", "blue", "blue")


@pytest.fixture
def model(processor: Any) -> Any:
    torch.manual_seed(0)
    model = build_model(processor, hidden=64, layers=1).double().eval()
    model.model.visual.requires_grad_(False)
    return model


@pytest.fixture
def looked(model: Any) -> Iterator[list[int]]:
    """How many images each pass through the tower had."""
    seen: list[int] = []
    hook = model.model.visual.register_forward_pre_hook(
        lambda _, args, given: seen.append(len(given["grid_thw"])), with_kwargs=True
    )
    yield seen
    hook.remove()


def encoded(processor: Any, images: list[int]) -> dict[str, Tensor]:
    """A prompt for each of these images."""
    chat = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "where is red"}]}],
        add_generation_prompt=True,
    )
    shown = [Image.new("RGB", SIZES[place], COLORS[place]) for place in images]
    return dict(
        processor(text=[chat] * len(images), images=shown, padding=True, padding_side="left", return_tensors="pt")
    )


def test_an_image_is_looked_at_once_in_whatever_order_it_comes_again(
    model: Any, processor: Any, looked: list[int]
) -> None:
    batches = [encoded(processor, images) for images in ([0, 1, 0], [2, 1], [1, 0, 2])]
    plain = [model(**batch).logits for batch in batches]
    looked.clear()
    with cached_image_features(model, {}):
        for batch, logits in zip(batches, plain, strict=True):
            torch.testing.assert_close(model(**batch).logits, logits, rtol=1e-6, atol=1e-6)
    assert looked == [2, 1]
    model(**batches[0])
    assert looked == [2, 1, 3]


def test_what_was_seen_without_gradients_serves_where_gradients_are_asked_for(model: Any, processor: Any) -> None:
    batch, seen = encoded(processor, [0, 1]), ImageFeatures()
    with cached_image_features(model, seen):
        with torch.inference_mode():
            model(**batch)
        model(**batch).logits.sum().backward()
        found = model.lm_head.weight.grad.clone()
    model.zero_grad()
    model(**batch).logits.sum().backward()
    torch.testing.assert_close(found, model.lm_head.weight.grad)


def test_a_tower_that_learns_looks_every_time(model: Any, processor: Any, looked: list[int]) -> None:
    model.model.visual.merger.requires_grad_(True)
    batch, seen = encoded(processor, [0, 0]), ImageFeatures()
    with cached_image_features(model, seen):
        model(**batch)
        model(**batch)
    assert looked == [2, 2]
    assert not seen


def test_images_beyond_the_limit_are_looked_at_again(
    model: Any, processor: Any, looked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: ImageFeatures = {}
    with cached_image_features(model, seen):
        model(**encoded(processor, [0]))
        monkeypatch.setattr(module, "LIMIT", sum(features.nbytes for features in seen.values()))
        for _ in range(2):
            model(**encoded(processor, [0, 1]))
    assert looked == [1, 1, 1]
    assert len(seen) == 1


def test_what_else_reads_images_is_as_before_afterwards(model: Any) -> None:
    with shared_prompts(model):
        shared = vars(model.model)["get_image_features"]
        with cached_image_features(model, {}):
            assert vars(model.model)["get_image_features"] is not shared
        assert vars(model.model)["get_image_features"] is shared
    assert "get_image_features" not in vars(model.model)


def test_models_without_such_a_tower_are_left_alone() -> None:
    with cached_image_features(torch.nn.Linear(2, 2), {}):
        pass
