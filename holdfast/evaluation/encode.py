"""Questions as tensors, one by one and joined at will, so that a prompt is prepared once for all evaluations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from holdfast.data.conversations import messages, pictures
from holdfast.data.shards import Question

Encoded = dict[str, Tensor]
"""A processor's output for one prompt: token-like entries are (tokens,), image entries keep their first dimension."""

AT_ONCE = 64


def encode(processor: Any, questions: list[Question]) -> list[Encoded]:
    """Every question's prompt, ready for the model, without padding."""
    encoded: list[Encoded] = []
    for start in range(0, len(questions), AT_ONCE):
        encoded.extend(_encode(processor, questions[start : start + AT_ONCE]))
    return encoded


def _encode(processor: Any, questions: list[Question]) -> list[Encoded]:
    texts = [
        processor.apply_chat_template(messages(question), tokenize=False, add_generation_prompt=True)
        for question in questions
    ]
    images = [pictures(question) for question in questions]
    features = processor(
        text=texts,
        images=images if any(images) else None,
        padding=True,
        padding_side="left",
        add_special_tokens=False,
        return_tensors="pt",
    )
    mask = features["attention_mask"].bool()
    counts = [len(shown) for shown in images]
    rows: list[Encoded] = [{} for _ in questions]
    for name, values in features.items():
        if values.shape[:2] == mask.shape:
            parts = [row[kept].clone() for row, kept in zip(values, mask, strict=True)]
        else:
            parts = [part.clone() for part in values.split(_sizes(name, features, counts))]
        for row, part in zip(rows, parts, strict=True):
            row[name] = part
    return rows


def _sizes(name: str, features: Any, counts: list[int]) -> list[int]:
    """How much of an image entry belongs to each question; Qwen's processors lay all patches in one row."""
    grids = features.get("image_grid_thw")
    if name != "pixel_values" or grids is None:
        return counts
    return [int(grid.prod(-1).sum()) for grid in grids.split(counts)]


def join(encoded: list[Encoded], pad_token: int, device: torch.device) -> dict[str, Tensor]:
    """One batch, padded on the left."""
    width = max(len(row["input_ids"]) for row in encoded)
    batch: dict[str, Tensor] = {}
    for name in encoded[0]:
        values = [row[name] for row in encoded]
        if all(value.shape == row["input_ids"].shape for value, row in zip(values, encoded, strict=True)):
            fill = pad_token if name == "input_ids" else 0
            values = [torch.nn.functional.pad(value, (width - len(value), 0), value=fill) for value in values]
            batch[name] = torch.stack(values).to(device)
        else:
            batch[name] = torch.cat(values).to(device)
    return batch
