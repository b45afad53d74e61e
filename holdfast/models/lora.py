"""What of a model learns: everything, everything but the frozen parts, or a LoRA adapter."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.utils import INCLUDE_LINEAR_LAYERS_SHORTHAND

from holdfast.config.methods import AnyStage
from holdfast.config.refs import ModelRef
from holdfast.errors import UserError, brief
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
        found = LoraConfig(**{"task_type": "CAUSAL_LM", **arguments})
        for words in (found.target_modules, found.exclude_modules):
            if isinstance(words, str):
                re.compile(words)
        return found
    except (TypeError, ValueError, re.error) as error:
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
    settings = lora_config({**spared, **stage.lora})
    _require_targets(model, settings, frozen)
    torch.manual_seed(seed)
    beside = get_peft_model(model, settings)
    if stage.orthogonal is not None and stage.orthogonal.initial and start is not None:
        turn_away(beside, start)
    return beside


def _require_targets(model: Any, settings: LoraConfig, frozen: tuple[str, ...]) -> None:
    """peft is content when one of the names matches, and otherwise says no remedy.

    Raises:
        UserError: a name, or the pattern, matches no module that may learn.
    """
    wanted = settings.target_modules
    if wanted is None or (isinstance(wanted, str) and wanted.lower() == INCLUDE_LINEAR_LAYERS_SHORTHAND):
        return
    names = [name for name, _ in model.named_modules()]
    spared = settings.exclude_modules or ()
    for words in [wanted] if isinstance(wanted, str) else [[word] for word in sorted(wanted)]:
        word = words if isinstance(words, str) else words[0]
        found = [name for name in names if _matches(name, words)]
        if not found:
            raise UserError(f"lora.target_modules: no module is called `{brief(word)}`; {_alike(word, model, spared)}")
        if all(_matches(name, spared) for name in found):
            kept = next((one for one in frozen if any(re.search(pattern(one), name) for name in found)), "")
            remedy = f"or set freeze to a list without `{kept}`" if kept else "or change lora.exclude_modules"
            raise UserError(
                f"lora.target_modules: what `{brief(word)}` names stays as it is ({found[0]}); take it out, {remedy}"
            )


def _matches(name: str, words: str | Collection[str]) -> bool:
    """Whether peft means a module by a pattern of whole names, or by names and their endings."""
    if isinstance(words, str):
        return re.fullmatch(words, name) is not None
    return any(name == word or name.endswith(f".{word}") for word in words)


def _alike(word: str, model: Any, spared: str | Collection[str]) -> str:
    linear = [name for name, one in model.named_modules() if isinstance(one, torch.nn.Linear)]
    layers = {name.rpartition(".")[2] for name in linear if not _matches(name, spared)}
    close = difflib.get_close_matches(word.rpartition(".")[2], layers, 1)
    if close:
        return f"did you mean {close[0]}?"
    return f"its linear layers are called {', '.join(sorted(layers))}"


def learning(model: Any, stage: AnyStage, seed: int, kept: ModelRef | None) -> Any:
    """The model as it is in the middle of a stage: its adapter beside it, and what may learn marked as such.

    `kept` is one of the stage's checkpoints; None is its beginning. Without an adapter, `model` is that checkpoint.
    """
    if stage.lora is None or kept is None:
        return adapted(model, stage, seed)
    return with_adapter(model, kept, learns=True)
