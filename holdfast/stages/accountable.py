"""What moves the weights of a training and no rule of a ledger covers, told by its arguments and its model."""

from __future__ import annotations

from typing import Any

import torch
from transformers import Trainer
from trl import SFTConfig

from holdfast.config.methods import AnyStage
from holdfast.errors import UserError, reason
from holdfast.influence.replay.steps import require_linear


def require_rules(stage: AnyStage, args: Any, model: Any) -> None:
    """Refuse a training whose ledger could not be made; `args` are TRL's, and the model may be without weights.

    Raises:
        UserError: it names the argument, the mitigation or the layer.
    """
    for name in stage.unaccounted:
        raise UserError(f"influence.ledger: no rule covers a stage's `{name}`; leave it out, or influence.ledger")
    if args.fp16:
        raise UserError("influence.ledger: float16 scales its losses, which no rule covers; train in bfloat16")
    dropping = [name for name, one in model.named_modules() if getattr(one, "p", 0) and _drops(one)]
    if dropping:
        raise UserError(f"influence.ledger: {dropping[0]} drops activations at random; set its dropout to 0")
    for name, there in _beyond(args, model).items():
        if there:
            raise UserError(
                f"influence.ledger: the loss with trainer.{name} is no function of the tokens' log-probabilities that "
                "a rule covers; leave that argument out, or influence.ledger"
            )
    require_linear(_optimizer(args))


def _beyond(args: Any, model: Any) -> dict[str, Any]:
    """By argument, whether it adds to the loss what does not go through log-probabilities alone."""
    text = model.config.get_text_config()
    coefficient = args.router_aux_loss_coef
    if coefficient is None:
        coefficient = getattr(text, "router_aux_loss_coef", 0.0)
    shared = {
        "use_liger_kernel": args.use_liger_kernel,
        "router_aux_loss_coef": hasattr(text, "output_router_logits") and coefficient,
        "neftune_noise_alpha": args.neftune_noise_alpha,
    }
    if isinstance(args, SFTConfig):
        smoothed = {"label_smoothing_factor": args.label_smoothing_factor}
        return {f"loss_type ({args.loss_type})": args.loss_type != "nll", **smoothed, **shared}
    return {
        "entropy_coef": args.entropy_coef,
        "use_adaptive_entropy": args.use_adaptive_entropy,
        "use_vllm": args.use_vllm,
        **shared,
    }


def _optimizer(args: Any) -> torch.optim.Optimizer:
    """As the trainer makes it, of one parameter of no meaning."""
    try:
        kind, given = Trainer.get_optimizer_cls_and_kwargs(args)
        return kind([{"params": [torch.nn.Parameter(torch.zeros(1))], "weight_decay": args.weight_decay}], **given)
    except (ImportError, TypeError, ValueError) as error:
        raise UserError(
            f"influence.ledger: no rule covers trainer.optim {args.optim} ({reason(error)}); its steps can be "
            "attributed with adamw_torch or sgd, or leave out influence.ledger"
        ) from error


def _drops(module: Any) -> bool:
    return isinstance(module, torch.nn.modules.dropout._DropoutNd)
