"""Which parameters are measured, and in which parts: what adds up over parameters may be measured part after part."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from holdfast.config.measurement import Influence
from holdfast.errors import UserError
from holdfast.influence.engine.engine import block_of
from holdfast.influence.engine.gradients import selection

FLOAT32 = 4
TEXT_LAYER = re.compile(r"[a-z]+\.(\d+)")
"""Of the language model, as `block_of` names it."""
LAST = {"norm", "final_layer_norm", "lm_head", "embed_out"}
"""Blocks behind all layers."""
COPIES = 2
"""Of a target: as its gradient, and stacked with the others."""


def choose(model: Any, layers: Sequence[str]) -> None:
    """Of the parameters that learn, measure in those only whose name contains one of the words; in all without words.

    Raises:
        UserError: a word is in no such name.
    """
    names = list(selection(model))
    for word in layers:
        if not any(word in name for name in names):
            raise UserError(
                f"influence.layers: the name of no parameter that learns contains `{word}`; the last is {names[-1]}"
            )
    for name, value in selection(model).items():
        value.requires_grad_(not layers or any(word in name for word in layers))


def parts_of(model: Any, settings: Influence, benchmarks: int) -> list[list[str]]:
    """Names of the parameters of each part, whole blocks of layers in their order.

    What a part's samples are held against takes `settings.memory_gb` at most, unless a single block takes more.
    """
    blocks: dict[str, list[str]] = {}
    for name in selection(model):
        blocks.setdefault(block_of(name), []).append(name)
    sizes = block_sizes(model)
    if settings.memory_gb is None:
        return [[name for names in blocks.values() for name in names]]
    room = settings.memory_gb * 1e9 / (COPIES * FLOAT32 * target_count(settings, benchmarks))
    parts: list[list[str]] = []
    filled = 0
    for block, names in blocks.items():
        if not parts or filled + sizes[block] > room:
            parts.append([])
            filled = 0
        parts[-1] += names
        filled += sizes[block]
    return parts


def block_sizes(model: Any) -> dict[str, int]:
    """Parameters of every block that is measured."""
    sizes: dict[str, int] = {}
    for name, value in selection(model).items():
        sizes[block_of(name)] = sizes.get(block_of(name), 0) + value.numel()
    return sizes


def depth(model: Any) -> int:
    """Layers of the language model that gradients go back through: those from the lowest measured one on."""
    layers: int = model.config.get_text_config().num_hidden_layers
    numbers = [TEXT_LAYER.fullmatch(block) for block in block_sizes(model) if block not in LAST]
    return layers - min((int(number[1]) if number else 0 for number in numbers), default=layers)


def target_count(settings: Influence, benchmarks: int) -> int:
    """Gradients that samples are held against: of every benchmark two halves, Adam's view and two halves of every
    probe, and the samples' own sum."""
    return 1 + benchmarks * (3 + 2 * settings.probes)


@contextmanager
def measuring_in(model: Any, names: Sequence[str]) -> Iterator[None]:
    """Within, only these of the parameters that learn require a gradient."""
    chosen, before = set(names), selection(model)
    for name, value in before.items():
        value.requires_grad_(name in chosen)
    try:
        yield
    finally:
        for value in before.values():
            value.requires_grad_(True)
