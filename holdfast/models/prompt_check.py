"""Whether a processor shows the model every question, all of its images, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import torch

from holdfast.benchmarks.public.boxes import FAMILIES, MODEL_TYPES, fitted_size
from holdfast.data.chat import rendered
from holdfast.data.shards import Question
from holdfast.errors import UserError, reason
from holdfast.models.encode import Encoded, encode, join

TRIED = 8
"""Questions of a shard that are encoded, of unlike numbers of images where there are such."""


def require_readable(processor: Any, config: Any, shard: str, questions: list[Question]) -> None:
    """Render every question, and encode and join a batch of each shard as training and evaluation will.

    Raises:
        UserError: the chat template or the processor fails, or an image does not arrive. It names the question.
    """
    for question in questions:
        _require_shown(processor, shard, question)
        _require_boxes(processor, config, shard, question)
    rows = []
    for question in _unlike(questions):
        try:
            [row] = encode(processor, [question])
        except Exception as error:  # every architecture has rules of its own for images
            raise UserError(
                f"{shard}: question {question.id} cannot be read by the model's processor ({reason(error)}); "
                "correct its images or leave it out"
            ) from error
        _require_tokens(config, shard, question, row)
        rows.append(row)
    if rows:
        join(rows, processor.tokenizer.pad_token_id, torch.device("cpu"))


def _require_shown(processor: Any, shard: str, question: Question) -> None:
    try:
        text = rendered(processor, question)
    except Exception as error:  # a template is a program of the user's
        raise UserError(
            f"model.path: its chat template fails on question {question.id} of {shard} ({reason(error)}); "
            "save the processor with one that takes images and text"
        ) from error
    if "'type': 'text'" in text:
        raise UserError("model.path: its chat template takes text alone; save the processor with one that takes images")
    token = getattr(processor, "image_token", None)
    if isinstance(token, str) and text.count(token) != len(question.images):
        raise UserError(
            f"{shard}: the prompt of question {question.id} holds {text.count(token)} places for images (`{token}`) "
            f"and {len(question.images)} images; take them out of the text, or correct the chat template"
        )


def _unlike(questions: list[Question]) -> list[Question]:
    """The first of every number of images, and then the first."""
    first = {len(question.images): question for question in reversed(questions)}
    chosen = list(first.values())[:TRIED]
    return [*chosen, *(question for question in questions[:TRIED] if question not in chosen)][:TRIED]


def _require_tokens(config: Any, shard: str, question: Question, row: Encoded) -> None:
    """Every token has an embedding, and images have tokens."""
    ids, words = row["input_ids"], config.get_text_config().vocab_size
    if int(ids.max()) >= words:
        raise UserError(
            f"model.path: its tokenizer writes token {int(ids.max())} in question {question.id} of {shard}, and the "
            f"model knows {words}; save the tokenizer that belongs to it"
        )
    token = getattr(config, "image_token_id", None)
    if token is None or not question.images:
        return
    shown = int((ids == token).sum())
    grids = row.get("image_grid_thw")
    merged = getattr(getattr(config, "vision_config", None), "spatial_merge_size", None)
    wanted = int(grids.prod(-1).sum()) // merged**2 if grids is not None and merged else None
    if not shown or wanted not in (None, shown):
        raise UserError(
            f"model.path: its processor gives the {len(question.images)} images of question {question.id} of {shard} "
            f"{shown} tokens where the model wants {wanted or 'some'}; save the processor that belongs to it"
        )


def _require_boxes(processor: Any, config: Any, shard: str, question: Question) -> None:
    """Boxes are asked for as this model writes them, and pixels are those of the image that it sees."""
    details = json.loads(question.details) if question.details else {}
    asked, own = details.get("boxes"), MODEL_TYPES.get(config.model_type)
    if asked not in FAMILIES:
        return
    if own is not None and asked in MODEL_TYPES.values() and asked != own:
        raise UserError(
            f"prior.{question.benchmark}.boxes: {asked} is asked for, and model.path is a {own}; write {own}"
        )
    if FAMILIES[asked].unit != "pixel":
        return
    if own is None:
        raise UserError(
            f"prior.{question.benchmark}.boxes: {asked} counts pixels of the image as its own processor resizes it, "
            f"and model.path is a {config.model_type}; write qwen3-vl for thousandths, or unit for shares"
        )
    width, height = details["size"]
    images = processor.image_processor
    bounds, side = images.size, images.patch_size * images.merge_size
    seen = fitted_size((width, height), bounds["longest_edge"], side, bounds["shortest_edge"])
    if seen != (width, height):
        raise UserError(
            f"{shard}: the processor makes {seen[0]}×{seen[1]} pixels of the {width}×{height} in which the box of "
            f"{question.id} is; set prior.{question.benchmark}.pixels to the most that it takes"
        )
