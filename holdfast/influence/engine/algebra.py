"""Norms and dots of per-sample gradients from a layer's inputs and output gradients, without keeping a gradient.

Shapes: a (samples, time, inputs), g (samples, time, outputs), targets (targets, parameter's numel). A sample's gradient
of a matrix is gᵀa. Sums over time are taken in the inputs' precision, sums over parts of a layer in float64.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

CHUNK, FEWEST_ROWS = 1 << 20, 32
"""Numbers of all samples' gradients made at once, so that they are still in the cache when they are reduced, and
the fewest rows of a layer that are worth a product."""
TOUCH, TOUCH_A_TARGET = 55.0, 3.0
"""What making a number of a gradient costs beyond its products, and each target's dot with it, in multiply-adds; as
measured on a CPU at 93 GFLOP/s a core. A GPU has more products to spare, and the choice changes no result."""
PAIR = 40.0
"""What a number of a Gram matrix costs beyond its products."""


class Reduced(NamedTuple):
    """What is kept of every sample's gradient, in float64."""

    norm2: Tensor
    """‖g‖² (samples,)."""
    dots: Tensor
    """⟨g, V⟩ (samples, targets)."""


def vector(gradient: Tensor, targets: Tensor) -> Reduced:
    """Of gradients that are there already (samples, numel): biases and norms."""
    return Reduced(_squares(gradient), (gradient @ targets.mT).double())


def product(a: Tensor, g: Tensor, targets: Tensor) -> Reduced:
    """Of gᵀa, the cheaper way."""
    if cheaper_by_pairs(a.shape[1], (g.shape[2], a.shape[2]), len(targets)):
        return Reduced(paired_norm2(a, g), contracted(a, g, targets))
    return materialised(a, g, targets)


def cheaper_by_pairs(time: int, shape: tuple[int, int], targets: int) -> bool:
    """Whether pairs of tokens and one contraction a target cost less than making the gradient, in multiply-adds."""
    outputs, inputs = shape
    making = (time + TOUCH + TOUCH_A_TARGET * targets) * outputs * inputs
    pairing = time * time * (inputs + outputs + PAIR) + time * targets * outputs * inputs
    return pairing < making


def materialised(a: Tensor, g: Tensor, targets: Tensor) -> Reduced:
    """Make some output rows of every sample's gradient, reduce them while they are in the cache, and go on."""
    samples, _, inputs = a.shape
    outputs = g.shape[2]
    step = max(FEWEST_ROWS, CHUNK // (samples * inputs))
    norm2 = a.new_zeros(samples, dtype=torch.float64)
    dots = a.new_zeros(samples, len(targets), dtype=torch.float64)
    for first in range(0, outputs, step):
        rows = torch.bmm(g[:, :, first : first + step].mT, a)
        norm2 += _squares(rows).sum(1)
        dots += rows.flatten(1) @ targets[:, first * inputs : (first + step) * inputs].mT
    return Reduced(norm2, dots)


def paired_norm2(a: Tensor, g: Tensor) -> Tensor:
    """‖gᵀa‖² = Σ_ts ⟨a_t, a_s⟩⟨g_t, g_s⟩ (samples,)."""
    pairs = torch.bmm(a, a.mT).mul_(torch.bmm(g, g.mT))
    return pairs.sum(2).double().sum(1)


def contracted(a: Tensor, g: Tensor, targets: Tensor) -> Tensor:
    """⟨gᵀa, V⟩ = Σ_t ⟨g_t V, a_t⟩ (samples, targets)."""
    samples, _, inputs = a.shape
    rows = g.flatten(0, 1)
    dots = a.new_empty(samples, len(targets), dtype=torch.float64)
    for index, target in enumerate(targets):
        moved = (rows @ target.view(-1, inputs)).view_as(a)
        dots[:, index] = moved.mul_(a).sum(2).double().sum(1)
    return dots


def lookup(ids: Tensor, g: Tensor, targets: Tensor) -> Reduced:
    """Of an embedding's gradient: `ids` (samples, time) are the rows that g (samples, time, width) is added to."""
    samples, width = len(ids), g.shape[2]
    vocabulary = targets.shape[1] // width
    own_ids = ids + vocabulary * torch.arange(samples, device=ids.device)[:, None]
    distinct, index = torch.unique(own_ids, return_inverse=True)
    rows = g.new_zeros(len(distinct), width).index_add_(0, index.flatten(), g.flatten(0, 1))
    sample, token = distinct // vocabulary, distinct % vocabulary
    norm2 = _by_sample(_squares(rows), sample, samples)
    dots = [_by_sample((rows * target.view(-1, width)[token]).sum(1), sample, samples) for target in targets]
    return Reduced(norm2, torch.stack(dots, 1) if dots else norm2.new_zeros(samples, 0))


def looked_up(a: Tensor, g: Tensor, ids: Tensor) -> Tensor:
    """Rows `ids` (samples, time') of gᵀa: (samples, time', inputs), without the other rows."""
    columns = g.gather(2, ids[:, None].expand(-1, g.shape[1], -1))
    return torch.bmm(columns.mT, a)


def _squares(rows: Tensor) -> Tensor:
    """Σ x² along the last axis; over a million numbers at once, torch's norm in float32 is off by 4e-6."""
    return torch.linalg.vector_norm(rows, dim=-1).double().square()


def _by_sample(values: Tensor, sample: Tensor, samples: int) -> Tensor:
    return values.new_zeros(samples, dtype=torch.float64).index_add_(0, sample, values.double())
