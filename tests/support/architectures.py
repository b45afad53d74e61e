"""Tiny random checkpoints of ten real architectures, one of text alone, with the bundled vocabulary."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
import transformers as hf

from holdfast.models.text_processor import TextProcessor
from holdfast.models.tiny.processor import build_processor

SIDE = 56
"""Of a square image, or tile of one, that the towers with fixed sizes see; in patches of 14."""
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}
QWEN_TOKENS = {
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
}
TOWERS = ("vis", "projector", "connector", "image_newline")
"""Parts that see images, by what their names contain."""
Made = tuple[Any, Any]
"""A model and its processor."""


PLAIN = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""A template of a model of text."""


def chat(image: str) -> str:
    """A template in which every image is shown as `image`."""
    return (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.content is string %}{{ m.content }}{% else %}{% for part in m.content %}"
        "{% if part.type == 'image' %}" + image + "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}"
        "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )


def tokenizer(*more: str, **named: str) -> Any:
    """The bundled tokenizer with further special tokens, some of them under names of their own."""
    made = copy.deepcopy(build_processor().tokenizer)
    made.chat_template = None
    if named:
        made.add_special_tokens({"extra_special_tokens": list(named.values())}, replace_extra_special_tokens=False)
        made._set_model_specific_special_tokens(named)
        for name, token in named.items():
            setattr(made, f"{name}_id", made.convert_tokens_to_ids(token))
    made.add_special_tokens({"additional_special_tokens": list(more)}, replace_extra_special_tokens=False)
    return made


def text(words: Any, **more: Any) -> dict[str, Any]:
    """The language model's sizes."""
    ends = {"eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id, "bos_token_id": None}
    return {**TEXT, **ends, "vocab_size": len(words) + 8, **more}


def _qwen(family: str, patch: int, vision: dict[str, Any], **rope: Any) -> Made:
    words = tokenizer()
    parameters = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e6, **rope}
    config = getattr(hf, f"{family}Config")(
        text_config=text(words, rope_parameters=parameters, head_dim=16, tie_word_embeddings=True),
        vision_config={"depth": 2, "num_heads": 2, "patch_size": patch, **vision},
        tie_word_embeddings=True,
        **{name: words.convert_tokens_to_ids(token) for name, token in QWEN_TOKENS.items()},
    )
    videos = hf.Qwen3VLVideoProcessor if family == "Qwen3VL" else hf.Qwen2VLVideoProcessor
    processor = getattr(hf, f"{family}Processor")(
        image_processor=hf.Qwen2VLImageProcessor(
            patch_size=patch, merge_size=2, temporal_patch_size=2, min_pixels=4 * patch**2
        ),
        tokenizer=words,
        video_processor=videos(),
        chat_template=chat("<|vision_start|><|image_pad|><|vision_end|>"),
    )
    return getattr(hf, f"{family}ForConditionalGeneration")(config), processor


def qwen2_5_vl() -> Made:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 64}
    return _qwen("Qwen2_5_VL", 14, {**sizes, "fullatt_block_indexes": [1], "window_size": 112})


def qwen2_vl() -> Made:
    return _qwen("Qwen2VL", 14, {"embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2})


def qwen3_vl() -> Made:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 64}
    deep = {"num_position_embeddings": 256, "deepstack_visual_indexes": [0]}
    return _qwen("Qwen3VL", 16, {**sizes, **deep}, mrope_interleaved=True)


def _idefics(family: str, **more: Any) -> Made:
    places = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    words = tokenizer("<fake_token_around_image>", "<image>", "<global-img>", "<end_of_utterance>", *places)
    config = getattr(hf, f"{family}Config")(
        vision_config={**VISION, "image_size": 64, "patch_size": 16},
        text_config=text(words, model_type="llama"),
        image_token_id=words.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        tie_word_embeddings=False,
        pad_token_id=words.pad_token_id,
    )
    pixels = getattr(hf, f"{family}ImageProcessor")(size={"longest_edge": 128}, max_image_size={"longest_edge": 64})
    processor = getattr(hf, f"{family}Processor")(
        image_processor=pixels, tokenizer=words, image_seq_len=4, chat_template=chat("<image>"), **more
    )
    return getattr(hf, f"{family}ForConditionalGeneration")(config), processor


def idefics3() -> Made:
    return _idefics("Idefics3")


def smolvlm() -> Made:
    return _idefics("SmolVLM", video_processor=hf.SmolVLMVideoProcessor())


def llava() -> Made:
    words = tokenizer("<image>")
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**VISION, image_size=SIDE, patch_size=14, projection_dim=32),
        text_config=hf.LlamaConfig(**text(words)),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
    )
    processor = hf.LlavaProcessor(
        image_processor=hf.CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}),
        tokenizer=words,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat("<image>\n"),
    )
    return hf.LlavaForConditionalGeneration(config), processor


def llava_onevision() -> Made:
    words = tokenizer("<image>", "<video>")
    grid = [[SIDE, SIDE], [SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE]]
    config = hf.LlavaOnevisionConfig(
        vision_config=hf.SiglipVisionConfig(**VISION, image_size=SIDE, patch_size=14, vision_use_head=False),
        text_config=hf.Qwen2Config(**text(words)),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        video_token_index=words.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=grid,
        vision_feature_layer=-1,
    )
    processor = hf.LlavaOnevisionProcessor(
        image_processor=hf.LlavaOnevisionImageProcessor(
            size={"height": SIDE, "width": SIDE}, image_grid_pinpoints=grid
        ),
        tokenizer=words,
        video_processor=hf.LlavaOnevisionVideoProcessor(),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=chat("<image>\n"),
    )
    return hf.LlavaOnevisionForConditionalGeneration(config), processor


def gemma3() -> Made:
    named = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    words = tokenizer(**named)
    config = hf.Gemma3Config(
        text_config=text(words, head_dim=16, sliding_window=64),
        vision_config={**VISION, "image_size": SIDE, "patch_size": 14, "vision_use_head": False},
        mm_tokens_per_image=4,
        boi_token_index=words.boi_token_id,
        eoi_token_index=words.eoi_token_id,
        image_token_index=words.image_token_id,
    )
    processor = hf.Gemma3Processor(
        image_processor=hf.Gemma3ImageProcessor(size={"height": SIDE, "width": SIDE}),
        tokenizer=words,
        chat_template=chat("<start_of_image>"),
        image_seq_length=4,
    )
    return hf.Gemma3ForConditionalGeneration(config), processor


def internvl() -> Made:
    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    words = tokenizer(**named)
    config = hf.InternVLConfig(
        vision_config={**VISION, "image_size": [SIDE, SIDE], "patch_size": [14, 14]},
        text_config=text(words, model_type="qwen2"),
        image_token_id=words.context_image_token_id,
        image_seq_length=4,
    )
    processor = hf.InternVLProcessor(
        image_processor=hf.GotOcr2ImageProcessor(size={"height": SIDE, "width": SIDE}, max_patches=4),
        tokenizer=words,
        video_processor=hf.InternVLVideoProcessor(),
        image_seq_length=4,
        chat_template=chat("<IMG_CONTEXT>\n"),
    )
    return hf.InternVLForConditionalGeneration(config), processor


VISION_LANGUAGE: dict[str, Callable[[], Made]] = {
    build.__name__: build
    for build in (qwen2_5_vl, qwen2_vl, qwen3_vl, idefics3, smolvlm, llava, llava_onevision, gemma3, internvl)
}


def qwen2_5_text() -> Made:
    """Its template joins strings, as Qwen2.5's does: content in parts fails."""
    words = tokenizer()
    words.chat_template = PLAIN
    return hf.Qwen2ForCausalLM(hf.Qwen2Config(**text(words, tie_word_embeddings=True))), TextProcessor(words)


ALL = {**VISION_LANGUAGE, "qwen2_5_text": qwen2_5_text}
QUICK = ("qwen2_5_vl", "smolvlm", "llava", "qwen2_5_text")
"""Of like ones one each, which stand for the others where all would take long."""


def each(names: Iterable[str]) -> list[Any]:
    """Parameters of a test: `make test` has the quick ones, `make test-all` all."""
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in names]


def made(name: str) -> Made:
    """A model in evaluation mode and its processor, the same every time."""
    torch.manual_seed(0)
    model, processor = ALL[name]()
    processor.tokenizer.padding_side = "left"
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    return model.eval(), processor
