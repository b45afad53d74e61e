"""What of a model learns: everything, everything but the frozen parts, or a LoRA adapter."""

from __future__ import annotations

from typing import Any

from peft import LoraConfig

from holdfast.errors import UserError


def freeze(model: Any, words: tuple[str, ...]) -> None:
    """Stop every parameter whose name contains one of the words from learning.

    Raises:
        UserError: a word matches no parameter, or nothing is left to learn.
    """
    names = [name for name, _ in model.named_parameters()]
    for word in words:
        if not any(word in name for name in names):
            parts = sorted({part for name in names for part in name.split(".")[:3]})
            raise UserError(f"freeze: no parameter's name contains `{word}`; its parts are {', '.join(parts)}")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not any(word in name for word in words))
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
