"""What of a model takes memory and time: its parameters, exactly, and the sizes of its layers."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from holdfast.models.lora import PARTS


class Shape(NamedTuple):
    """Of a model with what learns marked as such; it may be without weights, on `meta`."""

    parameters: int
    """All, an adapter's among them; one that is used under several names counts once."""
    learning: int
    adapter: int
    """Of an adapter, kept in float32 whatever the others are."""
    vision: int
    """Of the tower and the projector."""
    vision_learns: bool
    embedding: int
    """Of the table of tokens and the output layer, which are one where they are tied."""
    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_values: int
    """Width of a token's keys, and of its values, in a layer."""
    vocabulary: int
    vision_layers: int
    vision_hidden: int
    vision_intermediate: int

    @property
    def dense(self) -> int:
        """Parameters that every token of the text is multiplied with."""
        return self.parameters - self.vision - self.embedding


def shape_of(model: Any) -> Shape:
    """The shape of a model of any architecture that transformers has for images and text."""
    config = model.config
    text, tower = config.get_text_config(), getattr(config, "vision_config", None)
    named = dict(model.named_parameters())
    sees = re.compile(f"{PARTS['vision']}|{PARTS['projector']}")
    tables = [model.get_input_embeddings(), model.get_output_embeddings()]
    table = {id(value): value.numel() for one in tables if one is not None for value in one.parameters()}
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    heads = text.num_attention_heads
    return Shape(
        parameters=sum(value.numel() for value in named.values()),
        learning=sum(value.numel() for value in named.values() if value.requires_grad),
        adapter=sum(value.numel() for name, value in named.items() if ".lora_" in name),
        vision=sum(value.numel() for name, value in named.items() if sees.search(name)),
        vision_learns=any(value.requires_grad for name, value in named.items() if sees.search(name)),
        embedding=sum(table.values()),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        intermediate=text.intermediate_size,
        heads=heads,
        key_values=(getattr(text, "num_key_value_heads", None) or heads) * head,
        vocabulary=text.vocab_size,
        vision_layers=_first(tower, "depth", "num_hidden_layers"),
        vision_hidden=_first(tower, "embed_dim", "hidden_size"),
        vision_intermediate=_first(tower, "intermediate_size") or 4 * _first(tower, "embed_dim", "hidden_size"),
    )


def _first(config: Any, *names: str) -> int:
    """The first of some fields that an architecture has; 0 without any."""
    return next((int(value) for name in names if (value := getattr(config, name, None))), 0)
