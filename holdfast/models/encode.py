"""Questions as tensors, one by one and joined at will, so that a prompt is prepared once for all its uses."""

from __future__ import annotations

from typing import Any, NamedTuple

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


def completion_ids(tokenizer: Any, text: str, ended: bool = True) -> list[int]:
    """A completion's tokens, to train on, to evaluate and to measure; the end among them unless it was cut off.

    The end is the tokenizer's EOS. What a chat template writes after it, often a line break, is no part of it.
    """
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return [*ids, tokenizer.eos_token_id] if ended else ids


class TeacherForced(NamedTuple):
    """Prompts with given completions: prompts end, and completions begin, in the same column for all rows."""

    inputs: dict[str, Tensor]
    """What the model takes: prompts padded on the left, completions on the right."""
    targets: Tensor
    """The completions' tokens (rows, tokens), padded."""
    mask: Tensor
    """Which of them are real (rows, tokens)."""
    images: tuple[int, ...]
    """Images of each row."""


def teacher_forced(
    prompts: list[Encoded], completions: list[list[int]], pad_token: int, where: torch.device
) -> TeacherForced:
    """One batch; the model's last `targets.shape[1] + 1` logits but one predict the targets."""
    inputs = join(prompts, pad_token, where)
    targets, mask = _right_padded(completions, pad_token, where)
    images = tuple(len(prompt.get("image_grid_thw", prompt.get("pixel_values", ()))) for prompt in prompts)
    inputs["input_ids"] = torch.cat([inputs["input_ids"], targets], 1)
    inputs["attention_mask"] = torch.cat([inputs["attention_mask"], mask.to(inputs["attention_mask"].dtype)], 1)
    for name in ("token_type_ids", "mm_token_type_ids"):
        if name in inputs:
            inputs[name] = torch.cat([inputs[name], inputs[name].new_zeros(targets.shape)], 1)
    return TeacherForced(inputs, targets, mask, images)


def _right_padded(rows: list[list[int]], pad: int, where: torch.device) -> tuple[Tensor, Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows], device=where)
    mask = torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in rows], device=where)
    return ids, mask
