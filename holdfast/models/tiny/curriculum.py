"""What the bundled base model is taught: questions, captions and puzzles with random answers."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import Qwen2_5_VLProcessor

from holdfast.benchmarks import catalog
from holdfast.config.model import Recipe
from holdfast.data.chat import pictures, turn
from holdfast.data.shards import Question
from holdfast.models.tiny.answer_forms import jigsaw_forms, target_forms
from holdfast.models.tiny.captions import captions
from holdfast.models.tiny.parallel_map import parallel_map
from holdfast.models.tiny.processor import MERGE

IGNORED = -100
CAPTIONS, FORMS, OTHER_FORMS = 8000, 1200, 600
"""Distinct captions, puzzles with random answers, and questions of each other target with random answers."""
QUESTIONS = {
    "color": 1600,
    "shape": 3000,
    "count": 1600,
    "presence": 6500,
    "comparison": 5000,
    "pieces": 2000,
    "grounding": 12000,
    "digits": 4500,
}
"""Distinct training questions of each benchmark. Whether two things are the same is learned last, from yes or no."""
ANSWER_WEIGHT = 5.0
AT_ONCE = 200
"""Lessons whose images go through the tower together."""

Drawn = tuple[list[Image.Image], str, str]
"""Images, prompt, completion."""


class Lesson(NamedTuple):
    """A tokenised question with its completion; its images went through the frozen tower already.

    `ids`, `labels` and their `weights` (tokens,), `positions` (3, tokens) for the multimodal rotary embedding,
    `features` (image tokens, hidden).
    """

    ids: Tensor
    labels: Tensor
    weights: Tensor
    positions: Tensor
    features: Tensor


def prepare(model: Any, processor: Qwen2_5_VLProcessor, seed: int, recipe: Recipe) -> list[Lesson]:
    """All lessons in the curriculum's order, whatever the number of processes that make them."""

    def of_subject(subject: str) -> list[tuple[np.ndarray, ...]]:
        drawn = _drawn(subject, seed, recipe)
        chunks = iter(lambda: list(islice(drawn, AT_ONCE)), [])
        found = (lesson for chunk in chunks for lesson in _prepared(model, processor, chunk))
        return [tuple(part.numpy() for part in lesson) for lesson in found]

    subjects = [*catalog.PRIOR, "captions", "jigsaw", *recipe.forms]
    return [
        Lesson(*map(torch.from_numpy, arrays)) for arrays in chain(*parallel_map(of_subject, subjects, recipe.threads))
    ]


def _drawn(subject: str, seed: int, recipe: Recipe) -> Iterator[Drawn]:
    if subject == "captions":
        for caption in captions(_some(CAPTIONS, recipe), seed):
            yield [caption.image], caption.prompt, caption.text
    elif subject == "jigsaw" or subject in catalog.TARGETS:
        for question, completion in _forms(subject, seed, recipe):
            yield pictures(question), question.prompt, completion
    else:
        for _, drawn in islice(catalog.draw(subject, seed, "train"), _some(QUESTIONS[subject], recipe)):
            yield [drawn.image], drawn.prompt, drawn.reference


def _forms(subject: str, seed: int, recipe: Recipe) -> Iterator[tuple[Question, str]]:
    if subject == "jigsaw":
        return jigsaw_forms("train", _some(FORMS, recipe), seed, recipe.facts)
    return target_forms(subject, _some(OTHER_FORMS, recipe), seed, recipe.facts)


def _some(number: int, recipe: Recipe) -> int:
    return max(1, round(number * recipe.lessons))


@torch.no_grad()
def _prepared(model: Any, processor: Qwen2_5_VLProcessor, chunk: list[Drawn]) -> list[Lesson]:
    pixels = processor.image_processor(images=[i for images, _, _ in chunk for i in images], return_tensors="pt")
    grids = pixels["image_grid_thw"]
    counts = grids.prod(-1) // MERGE**2
    encoded = model.model.visual(pixels["pixel_values"], grid_thw=grids).pooler_output
    of_lesson = counts.split([len(images) for images, _, _ in chunk])
    texts = [_text(processor, n.tolist(), prompt) for n, (_, prompt, _) in zip(of_lesson, chunk, strict=True)]
    pairs = _tokens(processor, texts, [answer for _, _, answer in chunk])
    ids = pad_sequence([ids for ids, _ in pairs], batch_first=True)
    mask = pad_sequence([torch.ones_like(ids) for ids, _ in pairs], batch_first=True)
    types = (ids == processor.image_token_id).int()
    positions, _ = model.model.get_rope_index(ids, types, image_grid_thw=grids, attention_mask=mask)
    features = encoded.split(types.sum(-1).tolist())
    return [
        Lesson(tokens, labels, _weights(processor, tokens), positions[:, index, : len(tokens)], shown)
        for index, (shown, (tokens, labels)) in enumerate(zip(features, pairs, strict=True))
    ]


def _weights(processor: Qwen2_5_VLProcessor, ids: Tensor) -> Tensor:
    """More for the answer than for the reasoning: one token of yes or no is else lost among those that spell cells."""
    opening = processor.tokenizer.convert_tokens_to_ids("<answer>")
    answered = (ids == opening).cumsum(0).bool() & (ids != opening)
    return torch.where(answered, ANSWER_WEIGHT, 1.0)


def _text(processor: Qwen2_5_VLProcessor, counts: list[int], prompt: str) -> str:
    """The conversation up to the answer, with as many placeholders as the images take tokens."""
    text = processor.apply_chat_template(turn(len(counts), prompt), tokenize=False, add_generation_prompt=True)
    first, *rest = text.split(processor.image_token)
    return first + "".join(processor.image_token * n + part for n, part in zip(counts, rest, strict=True))


def _tokens(processor: Qwen2_5_VLProcessor, texts: list[str], answers: list[str]) -> list[tuple[Tensor, Tensor]]:
    """Token ids and labels of each lesson."""
    prompts = processor.tokenizer(texts)["input_ids"]
    completions = processor.tokenizer([answer + processor.tokenizer.eos_token for answer in answers])["input_ids"]
    pairs = zip(prompts, completions, strict=True)
    return [(torch.tensor(text + answer), torch.tensor([IGNORED] * len(text) + answer)) for text, answer in pairs]
