"""How TRL is told to train a model in parts by PyTorch's FSDP2."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy

ARGUMENTS = {"fsdp": True, "fsdp_config": {"version": 2}}
"""TRL's."""


def prepare(config: Any, model: Any) -> None:
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


def on_cpus(trainer: Any) -> None:
    """Have accelerate shard on CPUs, too, where it says nothing and leaves every process the whole model."""
    state = trainer.accelerator.state
    if state.distributed_type is DistributedType.MULTI_CPU:
        state.fsdp_plugin = FullyShardedDataParallelPlugin(**trainer.args.fsdp_plugin_args)
        state.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
        trainer.is_fsdp_enabled = True
