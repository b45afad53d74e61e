"""Published models without their weights: their configurations, as their authors give them."""

from __future__ import annotations

from typing import Any

import torch
import transformers as hf

TOWER = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "patch_size": 14}
TOWER_2_5: dict[str, Any] = {**TOWER, "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31]}
PARAMETERS = {
    "Qwen/Qwen2.5-VL-3B-Instruct": 3_754_622_976,
    "Qwen/Qwen2.5-VL-7B-Instruct": 8_292_166_656,
    "Qwen/Qwen3-VL-4B-Instruct": 4_437_815_808,
    "Qwen/Qwen2.5-3B-Instruct": 3_085_938_688,
}
"""As the Hub counts them in the weights' files."""


def without_weights(name: str) -> Any:
    """On `meta`."""
    with torch.device("meta"):
        return {
            "Qwen/Qwen2.5-VL-3B-Instruct": qwen2_5_vl_3b,
            "Qwen/Qwen2.5-VL-7B-Instruct": qwen2_5_vl_7b,
            "Qwen/Qwen3-VL-4B-Instruct": qwen3_vl_4b,
            "Qwen/Qwen2.5-3B-Instruct": qwen2_5_3b,
        }[name]()


def qwen2_5_3b() -> Any:
    sizes = {"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16}
    config = hf.Qwen2Config(**sizes, num_key_value_heads=2, vocab_size=151936, tie_word_embeddings=True)
    return hf.Qwen2ForCausalLM(config)


def qwen2_5_vl_3b() -> Any:
    text = {"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16}
    rope = {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6}
    config = hf.Qwen2_5_VLConfig(
        text_config={**text, "num_key_value_heads": 2, "vocab_size": 151936, "rope_parameters": rope},
        vision_config={**TOWER_2_5, "out_hidden_size": 2048},
        tie_word_embeddings=True,
    )
    return hf.Qwen2_5_VLForConditionalGeneration(config)


def qwen2_5_vl_7b() -> Any:
    text = {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28}
    rope = {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6}
    config = hf.Qwen2_5_VLConfig(
        text_config={**text, "num_key_value_heads": 4, "vocab_size": 152064, "rope_parameters": rope},
        vision_config={**TOWER_2_5, "out_hidden_size": 3584},
        tie_word_embeddings=False,
    )
    return hf.Qwen2_5_VLForConditionalGeneration(config)


def qwen3_vl_4b() -> Any:
    text = {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32}
    rope = {"rope_type": "default", "mrope_section": [24, 20, 20], "rope_theta": 5e6, "mrope_interleaved": True}
    tower = {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16, "patch_size": 16}
    config = hf.Qwen3VLConfig(
        text_config={
            **text,
            **{"num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "rope_parameters": rope},
        },
        vision_config={
            **tower,
            **{"out_hidden_size": 2560, "deepstack_visual_indexes": [5, 11, 17], "num_position_embeddings": 2304},
        },
        tie_word_embeddings=True,
    )
    return hf.Qwen3VLForConditionalGeneration(config)
