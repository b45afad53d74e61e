"""A model whose weights, gradients and moments lie in parts on the GPUs that train it, by FSDP2 or by ZeRO-3."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from holdfast import group
from holdfast.config.jobs import Train
from holdfast.config.methods import GRPO, AnyStage
from holdfast.config.refs import ModelRef
from holdfast.config.study import Strategy
from holdfast.errors import UserError
from holdfast.models.load import load_model
from holdfast.training import fsdp2, zero3


def sharding(strategy: Strategy) -> dict[str, Any]:
    """TRL's arguments that train so."""
    arguments: dict[Strategy, dict[str, Any]] = {
        "ddp": {},
        "fsdp2": fsdp2.ARGUMENTS,
        "zero3": {"deepspeed": zero3.SETTINGS},
    }
    # TRL writes into them.
    return deepcopy(arguments[strategy])


def strategy_of(arguments: Any) -> Strategy:
    """How a training with these arguments of TRL's holds its model."""
    return "fsdp2" if arguments.fsdp else "zero3" if arguments.deepspeed else "ddp"


def is_sharded(model: Any) -> bool:
    """Whether this process holds a part only."""
    return isinstance(model, FSDPModule) or any(map(zero3.is_part, model.parameters()))


def require_shardable(strategy: Strategy, dtype: str, stage: AnyStage, model: Any) -> None:
    """Refuse what cannot be trained in parts, or has never been.

    Raises:
        UserError: it says what to set instead.
    """
    if strategy == "zero3":
        zero3.require_deepspeed(dtype)
    where = f"compute.strategy: {strategy}"
    if stage.lora is not None:
        raise UserError(f"{where} trains whole models and this stage an adapter; set it to ddp")
    if isinstance(stage, GRPO) and stage.trainer.get("beta"):
        raise UserError(f"{where} has no reference for the KL; set trainer.beta to 0, or it to ddp")
    if not isinstance(getattr(model.get_decoder(), "layers", None), torch.nn.ModuleList):
        raise UserError(f"{where} finds no layers in {type(model).__name__}; set it to ddp")


def take_over(trainer: Any, start: ModelRef) -> None:
    """Have a new trainer of a model train in parts if its arguments say so."""
    strategy = strategy_of(trainer.args)
    if strategy == "fsdp2":
        fsdp2.on_cpus(trainer)
    if strategy == "zero3":
        zero3.on_cpus(trainer)
        zero3.load_whole()
        trainer.add_callback(zero3.Begin(trainer, start))


def own_part(parameter: Tensor) -> Tensor:
    """What this process holds of a parameter."""
    part = getattr(parameter, "ds_tensor", parameter).detach()
    return part.to_local() if isinstance(part, DTensor) else part


def whole(parameter: Tensor) -> Tensor:
    """All of a parameter that learns; every process must ask."""
    if zero3.is_part(parameter):
        return zero3.whole(parameter)
    parameter = parameter.detach()
    return parameter.full_tensor() if isinstance(parameter, DTensor) else parameter


def second_moment(optimizer: Any, parameter: Tensor) -> tuple[Tensor, float] | None:
    """All of Adam's mean of squared gradients of a parameter, and its steps, if it has any; every process must ask."""
    if zero3.is_part(parameter):
        return zero3.second_moment(optimizer, parameter)
    state = optimizer.state.get(parameter, {})
    if "exp_avg_sq" not in state:
        return None
    return whole(state["exp_avg_sq"]), float(state["step"])


def whole_model(model: Any, job: Train) -> Any:
    """On the first process, a copy of the model with all of its weights, in the host's memory; every one must ask.

    What does not learn is as the training found it, and may compute in half precision.
    """
    if not is_sharded(model):
        raise TypeError(f"{type(model).__name__} is not in parts")
    copy = None if group.number() else load_model(job.start, "float32", torch.device("cpu"))
    named = {} if copy is None else dict(copy.named_parameters())
    for name, parameter in model.named_parameters():
        weights = whole(parameter) if parameter.requires_grad else None
        if copy is not None and weights is not None:
            named[name].data.copy_(weights)
    return copy
