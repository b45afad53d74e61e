"""A model whose weights, gradients and moments lie in parts on the GPUs that train it (FSDP2)."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy
from torch.distributed.tensor import DTensor

from holdfast import group
from holdfast.config.jobs import Train
from holdfast.config.methods import GRPO, AnyStage
from holdfast.errors import UserError
from holdfast.models.load import load_model


def is_sharded(model: Any) -> bool:
    """Whether this process holds a part only."""
    return isinstance(model, FSDPModule)


def require_shardable(stage: AnyStage, model: Any) -> None:
    """Refuse what cannot be trained in parts, or has never been.

    Raises:
        UserError: it says what to set instead.
    """
    if stage.lora is not None:
        raise UserError("compute.strategy: fsdp2 trains whole models and this stage an adapter; set it to ddp")
    if isinstance(stage, GRPO) and stage.trainer.get("beta"):
        raise UserError("compute.strategy: with fsdp2 there is no reference for the KL; set trainer.beta to 0, or ddp")
    if not isinstance(getattr(model.get_decoder(), "layers", None), torch.nn.ModuleList):
        raise UserError(f"compute.strategy: fsdp2 finds no layers in {type(model).__name__}; set it to ddp")


def set_sharding(config: Any, model: Any) -> None:
    """Say in TRL's arguments what is gathered layer by layer; the rest is gathered once a pass.

    Layers of the language model, which every batch goes through: a tower is skipped where nothing is shown, and the
    processes that do use it would wait for ever. Mixed precision would by default round log-probabilities, and add
    gradients, in half precision too.
    """
    plugin = config.fsdp_plugin_args
    plugin["transformer_cls_names_to_wrap"] = type(model.get_decoder().layers[0]).__name__
    half = torch.bfloat16 if config.bf16 else torch.float16 if config.fp16 else None
    if half is not None:
        plugin["mixed_precision_policy"] = MixedPrecisionPolicy(half, torch.float32, torch.float32)
    model.register_forward_pre_hook(_gather_head)


def _gather_head(model: Any, _: Any) -> None:
    """TRL reads an output layer's weights without calling it, and of parts would not add up their gradients."""
    head = model.get_output_embeddings()
    if isinstance(head, FSDPModule):
        head.unshard()


def shard_on_cpus(trainer: Any) -> None:
    """Have accelerate shard on CPUs, too, where it says nothing and leaves every process the whole model."""
    state = trainer.accelerator.state
    if state.distributed_type is DistributedType.MULTI_CPU:
        state.fsdp_plugin = FullyShardedDataParallelPlugin(**trainer.args.fsdp_plugin_args)
        state.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
        trainer.is_fsdp_enabled = True


def own_part(value: Tensor) -> Tensor:
    """What this process holds of a tensor."""
    return value.to_local() if isinstance(value, DTensor) else value


def whole(value: Tensor) -> Tensor:
    """All of a tensor; every process must ask."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def whole_model(model: Any, job: Train) -> Any:
    """On the first process, a copy of the model with all of its weights, in the host's memory; every one must ask."""
    if not is_sharded(model):
        raise TypeError(f"{type(model).__name__} is not in parts")
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state = get_model_state_dict(model, options=options)
    if group.number():
        return None
    copy = load_model(job.start, "float32", torch.device("cpu"))
    copy.load_state_dict(state)
    return copy
