"""What is ascended: the log-likelihood of a completion, or random logits; with what the paper's measures need."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from holdfast.influence.engine.gradients import completion_logits, evaluating, log_likelihood, wide
from holdfast.models.encode import TeacherForced


class Certainty(NamedTuple):
    """Means over a completion's tokens, each (samples,), of vocabulary |V| and distribution π."""

    residual: np.ndarray
    """‖G‖² = ‖π − e_y‖² = ‖π‖² − 2π_y + 1."""
    error: np.ndarray
    """‖π − e_y‖."""
    spread: np.ndarray
    """‖A‖² = |V|·‖π‖² + |V| − 2, of A = I − 1πᵀ."""
    spread_norm: np.ndarray
    """√(|V|·(mean ‖π‖)² + |V| − 2): the mean stands inside the square, as in Ren & Sutherland's code."""


class Likelihood:
    """The log-likelihood, noting the certainty of every sample that passes by."""

    def __init__(self) -> None:
        self.parts: list[Certainty] = []

    def __call__(self, logits: Tensor, batch: TeacherForced) -> Tensor:
        with torch.no_grad():
            self.parts.append(certainty(logits, batch))
        return log_likelihood(logits, batch)

    @property
    def certainty(self) -> Certainty:
        """Of all samples so far, in their order."""
        return Certainty(*(np.concatenate(parts) for parts in zip(*self.parts, strict=True)))


@torch.no_grad()
def likelihoods(model: Any, batches: Iterable[TeacherForced]) -> list[float]:
    """Σ_t log π(y_t) of every completion, in order."""
    found: list[float] = []
    with evaluating(model):
        for batch in batches:
            found += log_likelihood(completion_logits(model, batch), batch).double().tolist()
    return found


def certainty(logits: Tensor, batch: TeacherForced) -> Certainty:
    """The certainty of each sample of a batch."""
    probabilities = logits.to(wide(logits.dtype)).softmax(-1)
    vocabulary = logits.shape[-1]
    square = probabilities.square().sum(-1)
    # ‖π‖² − 2π_y + 1 would lose a confident token, whose residual is far below 1, in rounding.
    others = probabilities.scatter(-1, batch.targets[..., None], 0.0)
    residual = others.square().sum(-1) + others.sum(-1).square()
    length = batch.mask.sum(1)

    def mean(values: Tensor) -> Tensor:
        return values.masked_fill(~batch.mask, 0.0).sum(1) / length

    spread = vocabulary * mean(square) + vocabulary - 2
    spread_norm = (vocabulary * mean(square.sqrt()).square() + vocabulary - 2).sqrt()
    columns = (mean(residual), mean(residual.sqrt()), spread, spread_norm)
    return Certainty(*(values.double().cpu().numpy() for values in columns))


class RandomLogits:
    """Σ R·z over a completion's logits z, with R standard normal and drawn anew for every batch.

    For independent R and R', E⟨J_oᵀR, J_uᵀR'⟩² = ‖J_o J_uᵀ‖²_F: the squared norm of the eNTK between two samples.
    """

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, logits: Tensor, batch: TeacherForced) -> Tensor:
        noise = torch.randn(logits.shape, generator=self.generator).to(logits)
        return (logits * noise).masked_fill(~batch.mask[..., None], 0.0).sum((1, 2))
