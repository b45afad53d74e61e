"""What a pass keeps, by arithmetic: near what torch allocates while the engine measures."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from allocated import peak
from peft import LoraConfig, get_peft_model
from transformers import Qwen2Config, Qwen2ForCausalLM

from holdfast.influence.engine.engine import Engine
from holdfast.influence.engine.likelihood import Likelihood
from holdfast.influence.parts import depth
from holdfast.models.encode import TeacherForced
from holdfast.models.shape import shape_of
from holdfast.stages import needs
from holdfast.stages.needs import Batch, Pass

ROWS, PROMPT, COMPLETION = 4, 56, 8
FACTOR = 1.4
"""Between arithmetic and measurement, either way."""


def model(way: str) -> Any:
    torch.manual_seed(0)
    config = Qwen2Config(
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=20_000 if way == "logits" else 100,
    )
    built = Qwen2ForCausalLM(config)
    if way == "adapter":
        return get_peft_model(built, LoraConfig(r=4, target_modules="all-linear")).eval()
    for name, value in built.named_parameters():
        value.requires_grad_({"all": True, "late": "layers.4." in name, "logits": "layers.5." in name}[way])
    return built.eval()


@pytest.mark.parametrize(("way", "layers"), [("adapter", 6), ("all", 6), ("late", 2), ("logits", 1)])
def test_activations_and_logits_by_arithmetic_are_near_what_a_pass_allocates(way: str, layers: int) -> None:
    read = model(way)
    ids = torch.randint(0, 100, (ROWS, PROMPT + COMPLETION))
    mask = torch.ones(ROWS, COMPLETION, dtype=torch.bool)
    batch = TeacherForced(
        {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, ids[:, PROMPT:], mask, (0,) * ROWS
    )
    engine = Engine(read, [])
    engine.measure(batch, Likelihood())
    taken = peak(lambda: engine.measure(batch, Likelihood()))
    assert depth(read) == layers
    shape = shape_of(read)._replace(adapter=0, layers=depth(read))
    expected = sum(needs.pass_memory(shape, Pass(Batch(1, PROMPT, COMPLETION), ids.numel(), needs.FLOAT32)))
    assert expected / FACTOR < taken < expected * FACTOR
