"""A model whose weights, gradients and moments lie in parts on the GPUs that train it (FSDP2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from holdfast import group
from holdfast.config.jobs import Train
from holdfast.models.load import load_model


def is_sharded(model: Any) -> bool:
    """Whether this process holds a part only."""
    return isinstance(model, FSDPModule)


def layers_of(model: Any) -> str:
    """The class whose modules are gathered one after another, for TRL's arguments; the rest is gathered once a pass.

    Layers of the language model, which every batch goes through: a tower is skipped where nothing is shown, and the
    processes that do use it would wait for ever.
    """
    return type(model.get_decoder().layers[0]).__name__


def own_part(value: Tensor) -> Tensor:
    """What this process holds of a tensor."""
    return value.to_local() if isinstance(value, DTensor) else value


def whole(value: Tensor) -> Tensor:
    """All of a tensor; every process must ask."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def whole_model(model: Any, job: Train) -> Any:
    """On the first process, a copy of the model with all of its weights, in the host's memory; every one must ask."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state = get_model_state_dict(model, options=options)
    if group.number():
        return None
    copy = load_model(job.start, "float32", torch.device("cpu"))
    copy.load_state_dict(state)
    return copy
