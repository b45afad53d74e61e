"""The bundled model's processor: Qwen2.5-VL's own classes, with a vocabulary trained on the bundled questions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, cast

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import Qwen2_5_VLProcessor, Qwen2Tokenizer, Qwen2VLImageProcessor, Qwen2VLVideoProcessor
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from holdfast.benchmarks import catalog
from holdfast.models.tiny.answer_forms import jigsaw_forms
from holdfast.models.tiny.captions import captions

PATCH, MERGE = 16, 2
VOCABULARY = 768
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
TAGS = ("<think>", "</think>", "<answer>", "</answer>")

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Qwen2.5-VL's, without its system turn."""


def build_processor() -> Qwen2_5_VLProcessor:
    """The same processor every time: its vocabulary comes from a fixed sample of questions and answers."""
    tokenizer = _tokenizer()
    sides: dict[str, Any] = {"patch_size": PATCH, "merge_size": MERGE, "temporal_patch_size": 2}
    sides["size"] = {"shortest_edge": (PATCH * MERGE) ** 2, "longest_edge": (PATCH * MERGE * 16) ** 2}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**sides),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**sides),
        chat_template=CHAT_TEMPLATE,
    )


def _tokenizer() -> Qwen2Tokenizer:
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trained.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    limit = VOCABULARY - len(SPECIAL) - len(TAGS)
    trainer = trainers.BpeTrainer(vocab_size=limit, initial_alphabet=alphabet, show_progress=False)
    trained.train_from_iterator(_corpus(), trainer)
    model = _saved(trained)
    tokenizer = Qwen2Tokenizer(
        vocab=model["vocab"],
        merges=cast("list[str]", [tuple(pair) for pair in model["merges"]]),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL[1:]),
        model_max_length=4096,
        padding_side="left",
    )
    tokenizer.add_tokens([AddedToken(tag, normalized=False) for tag in TAGS])
    return tokenizer


def _saved(tokenizer: Tokenizer) -> dict[str, Any]:
    return json.loads(tokenizer.to_str())["model"]


def _corpus() -> Iterator[str]:
    """Words of all bundled questions, of both styles of reasoning, with tags left out: they are tokens of their own."""
    yield "user\n assistant\n 0 1 2 3 4 5 6 7 8 9"
    for benchmark in catalog.PRIOR:
        for question in catalog.prior_questions(benchmark, 200, seed=0, split="vocabulary"):
            yield question.prompt
            yield _bare(question.reference)
    for caption in captions(100, seed=0, split="vocabulary"):
        yield f"{caption.prompt} {caption.text}"
    for question, completion in jigsaw_forms("vocabulary", 400):
        yield question.prompt
        yield _bare(completion)
        yield _bare(question.teacher)


def _bare(text: str) -> str:
    for tag in TAGS:
        text = text.replace(tag, "")
    return text
