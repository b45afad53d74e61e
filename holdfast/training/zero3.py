"""How TRL is told to train a model in parts by DeepSpeed's ZeRO stage 3 (arXiv 1910.02054).

DeepSpeed gathers what a module computes with when it is called, so every process has to call the same modules in the
same order: no part of a batch may take another way through the model.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from holdfast import group
from holdfast.config.refs import ModelRef
from holdfast.data.shards import Question
from holdfast.errors import UserError
from holdfast.models.load import load_model

SETTINGS: dict[str, Any] = {
    "zero_optimization": {
        "stage": 3,
        "reduce_bucket_size": "auto",
        "stage3_prefetch_bucket_size": "auto",
        "stage3_param_persistence_threshold": 0,
        # Without, transformers writes all that is resumed from twice.
        "stage3_gather_16bit_weights_on_model_save": True,
    },
    "bf16": {"enabled": "auto"},
    # By default gradients are added in half precision.
    "communication_data_type": "fp32",
    "data_types": {"grad_accum_dtype": "fp32"},
    "gradient_clipping": "auto",
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
}
"""DeepSpeed's; `auto` is what TRL's arguments say."""


def require_deepspeed(dtype: str) -> None:
    """UserError where DeepSpeed is missing, or would scale its losses for half precision (`dtype`) by itself."""
    if dtype == "float16":
        raise UserError(
            "compute.strategy: zero3 was never tried with float16; set model.dtype to bfloat16, or it to fsdp2"
        )
    if find_spec("deepspeed") is None:
        raise UserError(
            "compute.strategy: zero3 needs DeepSpeed, which is not in this environment; `make zero3` makes one with it "
            "(docs/models.md), or set it to fsdp2"
        )


def require_alike(questions: Iterable[Question]) -> None:
    """UserError where some show images and others do not, since a tower would be called by some processes alone."""
    if len({bool(question.images) for question in questions}) > 1:
        raise UserError(
            "compute.strategy: zero3 needs images in all prompts that a stage learns from, or in none; set it to fsdp2"
        )


def load_whole() -> None:
    """Have transformers load whole models, which lie in parts only once they are trained.

    TRL's arguments and its trainers ask for the contrary when they are made.
    """
    unset_hf_deepspeed_config()


def on_cpus(trainer: Any) -> None:
    """Have accelerate use DeepSpeed on CPUs, too, where it says nothing and leaves every process the whole model."""
    state, plugin = trainer.accelerator.state, trainer.args.deepspeed_plugin
    if state.distributed_type is DistributedType.MULTI_CPU:
        state.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.DEEPSPEED
        plugin.set_mixed_precision("no")
        plugin.select(_from_accelerator_state=True)
        state.deepspeed_plugins = plugin
        trainer.is_deepspeed_enabled = True


class Begin(TrainerCallback):
    """Puts right what DeepSpeed has made of a model when its training begins."""

    def __init__(self, trainer: Any, start: ModelRef) -> None:
        self.trainer = trainer
        self.start = start

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """Every GPU keeps all but the language model's layers, as with FSDP2, and float32 is what it was."""
        kept = self.trainer.deepspeed.optimizer.persistent_parameters
        of_layers = {id(value) for value in model.get_decoder().layers.parameters()}
        for value in model.parameters():
            if id(value) not in of_layers and not value.ds_persist:
                # TRL reads an output layer without calling it, which would gather it.
                value.ds_persist = True
                kept.append(value)
        kept[0].all_gather(kept)
        if args.bf16 and not state.global_step:
            first = None if group.number() else load_model(self.start, "float32", torch.device("cpu"))
            learn_from(first, model)


def learn_from(start: Any, model: Any) -> None:
    """Give the float32 that learns its first values, of which DeepSpeed has taken the rounded ones.

    The first process has them; the others get them, a parameter at a time.
    """
    from deepspeed.utils import safe_set_full_fp32_param

    whole = {} if start is None else dict(start.named_parameters())
    for name, value in model.named_parameters():
        if value.requires_grad:
            first = torch.empty(value.ds_shape, device=value.device)
            if whole:
                first.copy_(whole[name].detach())
            group.from_the_first(first)
            safe_set_full_fp32_param(value, first)


def is_part(value: Tensor) -> bool:
    """Whether a parameter is one of which this process may hold a part only."""
    return hasattr(value, "ds_tensor")


def whole(value: Tensor) -> Tensor:
    """All of a parameter that learns, in float32; every process must ask."""
    from deepspeed.utils import safe_get_full_fp32_param

    return safe_get_full_fp32_param(value)


def second_moment(optimizer: Any, parameter: Tensor) -> tuple[Tensor, float] | None:
    """All of Adam's mean of squared gradients of a parameter, and its steps, if it has any; every process must ask."""
    from deepspeed.utils import safe_get_full_optimizer_state

    state: dict[str, Any] = next(iter(optimizer.optimizer.state.values()), {})
    if "exp_avg_sq" not in state:
        return None
    return safe_get_full_optimizer_state(parameter, "exp_avg_sq"), float(state["step"])
