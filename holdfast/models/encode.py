"""Questions as tensors, one by one and joined at will, so that a prompt is prepared once for all its uses."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from holdfast.data.chat import pictures, rendered
from holdfast.data.shards import Question


class Encoded(dict[str, Tensor]):
    """A processor's output for one prompt: token-like entries are (tokens,), image entries keep all dimensions."""

    question: Question | None = None
    """What it was made of."""


def encode(processor: Any, questions: list[Question]) -> list[Encoded]:
    """Every question's prompt, ready for the model, without padding.

    The processor gets one question at a time: how it lays out a batch's images differs between architectures.
    """
    return [_encode(processor, question) for question in questions]


def _encode(processor: Any, question: Question) -> Encoded:
    text = rendered(processor, question)
    images = pictures(question)
    features = processor(
        text=[text], images=[images] if images else None, add_special_tokens=False, return_tensors="pt"
    )
    wide = features["input_ids"].shape
    encoded = Encoded({name: value[0] if value.shape == wide else value for name, value in features.items()})
    encoded.question = question
    return encoded


def join(encoded: list[Encoded], pad_token: int, device: torch.device) -> dict[str, Tensor]:
    """One batch: tokens padded on the left; images one after another, filled up with zeros to the largest.

    A prompt without images has no image entries, and a batch of such prompts has none either.
    """
    width = max(len(row["input_ids"]) for row in encoded)
    batch: dict[str, Tensor] = {}
    for name in dict.fromkeys(name for row in encoded for name in row):
        given = [row[name] for row in encoded if name in row]
        if all(row[name].shape == row["input_ids"].shape for row in encoded if name in row):
            fill = pad_token if name == "input_ids" else 0
            given = [row.get(name, torch.zeros_like(row["input_ids"])) for row in encoded]
            rows = [nn.functional.pad(row, (width - len(row), 0), value=fill) for row in given]
            batch[name] = torch.stack(rows).to(device)
        else:
            batch[name] = torch.cat(_filled_up(given)).to(device)
    return batch


def _filled_up(values: list[Tensor]) -> list[Tensor]:
    """Alike in every dimension but the first, with zeros at the ends, as processors fill up images and tiles."""
    largest = [max(sizes) for sizes in zip(*(value.shape[1:] for value in values), strict=True)]
    missing = [[most - size for most, size in zip(largest, value.shape[1:], strict=True)] for value in values]
    margins = [[end for size in sizes[::-1] for end in (0, size)] for sizes in missing]
    return [nn.functional.pad(value, margin) for value, margin in zip(values, margins, strict=True)]


def frames(prompt: Encoded) -> int:
    """Images, or tiles of images, of a prompt that the vision tower sees; tiles of zeros only fill up a batch."""
    if "image_grid_thw" in prompt:
        return len(prompt["image_grid_thw"])
    if "pixel_attention_mask" in prompt:
        return int(prompt["pixel_attention_mask"].flatten(-2).any(-1).sum())
    return int(prompt["pixel_values"].flatten(-3).any(-1).sum()) if "pixel_values" in prompt else 0


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
    """Images of each row, or tiles where the architecture cuts images into such."""


def teacher_forced(
    prompts: list[Encoded], completions: list[list[int]], pad_token: int, where: torch.device
) -> TeacherForced:
    """One batch; the model's last `targets.shape[1] + 1` logits but one predict the targets."""
    inputs = join(prompts, pad_token, where)
    targets, mask = _right_padded(completions, pad_token, where)
    images = tuple(map(frames, prompts))
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
