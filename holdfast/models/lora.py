"""What of a model learns: everything, everything but the frozen parts, or a LoRA adapter."""

from __future__ import annotations

import re
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from holdfast.config.methods import AnyStage
from holdfast.config.refs import ModelRef
from holdfast.errors import UserError
from holdfast.models.load import sees, with_adapter
from holdfast.models.orthogonal import turn_away

PARTS = {
    "vision": r"(?:visual|vision_tower|vision_model)(?!\.(?:merger|deepstack_merger_list))\b",
    "projector": r"\bvisual\.(?:merger|deepstack_merger_list)\b|multi_modal_projector|connector|image_newline",
    "language": r"language_model|text_model|lm_head",
    "attention": r"^(?!.*vis).*self_attn\.(?:q|k|v|o|out|qkv)_proj",
    "gate-up": r"^(?!.*vis).*mlp\.(?:gate|up|gate_up)_proj",
}
"""Parts of a model by what the names of their parameters contain, whatever an architecture calls them."""


TOWER = "vis"
"""What stays as it is unless a study says otherwise; a model of text has no such part."""


def pattern(word: str) -> str:
    """What finds a part, or a word, in a parameter's name."""
    return PARTS.get(word, re.escape(word))


def freeze(model: Any, words: tuple[str, ...], learn: tuple[str, ...] = ()) -> None:
    """Stop every parameter from learning whose name contains one of the words, or belongs to a part that one names.

    Of the others, where some are to learn, those alone do.

    Raises:
        UserError: a word matches no parameter, or nothing is left to learn.
    """
    names = [name for name, _ in model.named_parameters()]
    for field, word in [*(("freeze", word) for word in words), *(("learn", word) for word in learn)]:
        if not any(re.search(pattern(word), name) for name in names):
            parts = sorted({part for name in names for part in name.split(".")[:3]})
            raise UserError(f"{field}: no parameter's name contains `{word}`; its parts are {', '.join(parts)}")
    for name, parameter in model.named_parameters():
        frozen, chosen = (any(re.search(pattern(word), name) for word in given) for given in (words, learn))
        parameter.requires_grad_(not frozen and (chosen or not learn))
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError("freeze: every parameter is frozen, so nothing can learn; name fewer parts")


def lora_config(arguments: dict[str, Any]) -> LoraConfig:
    """The adapter's configuration from peft's own argument names.

    Raises:
        UserError: an argument is unknown to peft or has a wrong value.
    """
    try:
        return LoraConfig(**{"task_type": "CAUSAL_LM", **arguments})
    except (TypeError, ValueError) as error:
        raise UserError(f"lora: {error}; see peft.LoraConfig for its arguments") from error


def adapted(model: Any, stage: AnyStage, seed: int, start: ModelRef | None = None) -> Any:
    """The model with what may learn marked as such: unfrozen parameters, or an adapter beside unfrozen parts.

    `start` is where the model comes from; without it, an adapter knows of none before.
    """
    frozen = stage.freeze if sees(model.config) else tuple(word for word in stage.freeze if word != TOWER)
    freeze(model, frozen, stage.learn)
    if stage.lora is None:
        return model
    spared = {"exclude_modules": f".*({'|'.join(map(pattern, frozen))}).*"} if frozen else {}
    torch.manual_seed(seed)
    beside = get_peft_model(model, lora_config({**spared, **stage.lora}))
    if stage.orthogonal is not None and stage.orthogonal.initial and start is not None:
        turn_away(beside, start)
    return beside


def learning(model: Any, stage: AnyStage, seed: int, kept: ModelRef | None) -> Any:
    """The model as it is in the middle of a stage: its adapter beside it, and what may learn marked as such.

    `kept` is one of the stage's checkpoints; None is its beginning. Without an adapter, `model` is that checkpoint.
    """
    if stage.lora is None or kept is None:
        return adapted(model, stage, seed)
    return with_adapter(model, kept, learns=True)
