"""Qwen2.5-VL of the exact 3B shape with random weights, made where it is needed, and a tiny stand-in of its classes.

Speed and memory depend on shapes and lengths alone, so nothing is downloaded. Text is in the bundled vocabulary; the
table of tokens and the output layer have Qwen's size all the same.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import (
    AutoModelForImageTextToText,
    Qwen2_5_VLConfig,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from holdfast.benchmarks.dataset import make_data
from holdfast.config.images import Images, World
from holdfast.config.jobs import MakeData
from holdfast.config.targets import Jigsaw, Target
from holdfast.data.shards import Question, read_questions, target_shard
from holdfast.models.tiny.processor import CHAT_TEMPLATE, build_processor

PATCH, MERGE = 14, 2
VISION = {"patch_size": PATCH, "spatial_merge_size": MERGE, "temporal_patch_size": 2}
PLACEHOLDERS = {
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
}


class Shape(NamedTuple):
    """Sizes of a model and of what it is asked."""

    name: str
    text: dict[str, Any]
    vision: dict[str, Any]
    side: int
    """Of a puzzle's picture, in pixels; it takes (side / 28)² tokens."""
    completion: int
    """Tokens of every completion."""

    @property
    def patches(self) -> int:
        """Of a picture, as the tower sees it."""
        return (self.side // PATCH) ** 2


QWEN_3B = Shape(
    name="Qwen2.5-VL-3B",
    text={
        "hidden_size": 2048,
        "intermediate_size": 11008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6},
    },
    vision={
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "out_hidden_size": 2048,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
    },
    side=504,
    completion=128,
)
STAND_IN = Shape(
    name="tiny stand-in",
    text={
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 2048,
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e6},
    },
    vision={
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": 64,
        "window_size": 112,
        "fullatt_block_indexes": [1],
    },
    side=84,
    completion=12,
)


def processor_of(shape: Shape) -> Any:
    """Qwen2.5-VL's processor with the bundled vocabulary; a puzzle's picture keeps its size."""
    sides: dict[str, Any] = {"patch_size": PATCH, "merge_size": MERGE, "temporal_patch_size": 2}
    sides["size"] = {"shortest_edge": (PATCH * MERGE) ** 2, "longest_edge": shape.side**2}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**sides),
        tokenizer=build_processor().tokenizer,
        video_processor=Qwen2VLVideoProcessor(**sides),
        chat_template=CHAT_TEMPLATE,
    )


def model_of(shape: Shape, processor: Any, where: torch.device, dtype: torch.dtype) -> Any:
    """In evaluation mode; the same random weights every time, drawn on the device."""
    words = processor.tokenizer
    ends = {"bos_token_id": None, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id}
    config = Qwen2_5_VLConfig(
        text_config={**shape.text, **ends, "max_position_embeddings": 128000, "tie_word_embeddings": True},
        vision_config={**VISION, **shape.vision},
        tie_word_embeddings=True,
        **{name: words.convert_tokens_to_ids(token) for name, token in PLACEHOLDERS.items()},
    )
    torch.manual_seed(0)
    with where:
        model: Any = AutoModelForImageTextToText.from_config(config, dtype=dtype)
    model.generation_config.eos_token_id = words.eos_token_id
    model.generation_config.pad_token_id = words.pad_token_id
    return model.eval()


def puzzles(count: int, images: Images, target: Target) -> list[Question]:
    """So many training questions, of which no picture is shown twice."""
    small = target.model_copy(update={"train": count, "validation": 1, "test": 1})
    with tempfile.TemporaryDirectory() as place:
        make_data(MakeData(images=images, target=small, prior=()), Path(place))
        return read_questions(Path(place) / target_shard("train", ""))


def puzzles_for(shape: Shape, count: int) -> list[Question]:
    """3×3 jigsaws of the shape's size."""
    return puzzles(count, World(size=shape.side), Jigsaw(grid=(3, 3)))
