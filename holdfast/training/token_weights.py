"""Token-adaptive loss (TALR): tokens that the model finds unlikely count less, so that they move it less."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from holdfast.training.sft import IGNORED

Loss = Callable[..., Tensor]


def talr_loss(tau: float | Literal["median"]) -> Loss:
    """What transformers takes as `compute_loss_func`: Σ w ℓ / tokens of the step, w of a pass with mean 1."""

    def loss(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
        learned = labels[:, 1:] != IGNORED
        logits = outputs.logits[:, :-1][learned].float()
        losses = torch.nn.functional.cross_entropy(logits, labels[:, 1:][learned], reduction="none")
        total = losses.numel() if num_items_in_batch is None else num_items_in_batch
        return (token_weights(losses.detach(), tau) * losses).sum() / total

    return loss


def token_weights(losses: Tensor, tau: float | Literal["median"]) -> Tensor:
    """w ∝ p^(1/τ) = exp(−ℓ / τ) of the tokens of a pass, with mean 1; τ is given, or the median of their losses."""
    scale = losses.median().clamp_min(1e-6) if tau == "median" else torch.tensor(tau)
    return torch.softmax(-losses / scale, 0) * losses.numel()
