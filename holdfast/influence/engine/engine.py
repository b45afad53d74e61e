"""Every sample's gradient norm and its dots with K targets, by layer, in one batched forward and backward pass.

No sample's gradient is kept, nothing is projected: the results are exact to rounding, tied embeddings and packed vision
tokens included. g_u is the gradient of the summed log-likelihood of sample u, so a positive dot with a benchmark's mean
gradient reinforces the benchmark.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from holdfast.errors import UserError
from holdfast.influence.engine.capture import capturing
from holdfast.influence.engine.gradients import (
    Gradient,
    Objective,
    batch_gradient,
    completion_logits,
    evaluating,
    log_likelihood,
    require_supervised,
    selection,
    wide,
)
from holdfast.influence.engine.layers import find_sites
from holdfast.influence.engine.parameter import ParameterGradients
from holdfast.models.encode import TeacherForced

WRAPPERS = {"base_model", "model", "language_model", "text_model", "transformer", "gpt_neox", "encoder", "decoder"}
"""Parts of a parameter's name that do not say where in the model it is."""
TOWERS = {"visual", "vision_tower", "vision_model"}
NUMBERED = re.compile(r"^(.*?\b(?:layers|blocks|layer|block|h|resblocks)\.\d+)\.")

ROUNDING = {torch.float64: 1e-6, torch.float32: 2e-4}
"""How far per-sample gradients may be from autograd's, by precision; 2e-2 in others. Five to ten times what was seen
(2e-5 in float32, 4e-3 in bfloat16): a tied embedding's cross term can be as little as 9e-4 of its squared norm."""


@dataclass(frozen=True)
class Influences:
    """What a batch's samples do, in float64 on the CPU."""

    tokens: Tensor
    """Supervised tokens (samples,)."""
    loglik: Tensor
    """The objective (samples,), by default the summed log-likelihood in nats."""
    norms2: Tensor
    """‖g_u‖² within each block (samples, blocks)."""
    dots: Tensor
    """⟨g_u, V_k⟩ within each block (samples, targets, blocks)."""

    @property
    def norm2(self) -> Tensor:
        """‖g_u‖² (samples,)."""
        return self.norms2.sum(-1)

    @property
    def dot(self) -> Tensor:
        """⟨g_u, V_k⟩ (samples, targets)."""
        return self.dots.sum(-1)

    @property
    def finite(self) -> Tensor:
        """Which samples' numbers are all finite (samples,)."""
        return (self.loglik + self.norm2 + self.dot.sum(1)).isfinite()


class Engine:
    """Measures samples against K targets in the space of the parameters that require a gradient now.

    Raises:
        UserError: a selected parameter belongs to an unsupported module, or the targets do not fit the selection.
    """

    def __init__(self, model: Any, targets: Sequence[Gradient]) -> None:
        self.model = model
        selected = selection(model)
        if not selected:
            raise UserError("influence: every parameter is frozen; choose layers or an adapter to measure in")
        self.sites = find_sites(model)
        self.targets = {name: _stack(name, value, targets) for name, value in selected.items()}
        self.widths = {name: value.shape[-1] for name, value in selected.items()}
        self.blocks = list(dict.fromkeys(map(block_of, selected)))
        self._block = {name: self.blocks.index(block_of(name)) for name in selected}
        for target in targets:
            _refuse_unknown(target, selected)

    def measure(self, batch: TeacherForced, objective: Objective = log_likelihood) -> Influences:
        """One forward and one backward pass for all samples and targets.

        Raises:
            UserError: a sample has no supervised token, or a module's rows cannot be told apart by sample.
        """
        require_supervised(batch)
        parameters = {name: ParameterGradients(targets, self.widths[name]) for name, targets in self.targets.items()}
        with evaluating(self.model), torch.enable_grad(), capturing(self.model, self.sites, parameters, batch):
            values = objective(completion_logits(self.model, batch), batch)
            if values.requires_grad:
                values.sum().backward()
        return self._influences(batch, values, parameters)

    def verify(self, batch: TeacherForced, tolerance: float | None = None) -> None:
        """Hold the batch against ordinary autograd: the sum over its samples, and one sample by itself.

        Costs two more passes and notices what hooks cannot see, such as weights used without their module.

        Raises:
            UserError: a block deviates by more than the tolerance (by default rounding's), relative to its gradient;
                or autograd's own gradient is not finite.
        """
        if tolerance is None:
            tolerance = max(ROUNDING.get(value.dtype, 2e-2) for value in selection(self.model).values())
        one = max(range(len(batch.targets)), key=lambda index: batch.images[index])
        whole = batch_gradient(self.model, batch)
        alone = batch_gradient(self.model, batch, _only(one))
        measured = Engine(self.model, [whole, alone]).measure(batch)
        expected = [self._norms2(whole), self._norms2(alone)]
        spread = measured.norms2.sum(0).sqrt() * expected[0].sqrt()
        _compare(self.blocks, measured.dots[:, 0].sum(0), expected[0], spread, tolerance)
        _compare(self.blocks, measured.dots[one, 1], expected[1], expected[1], tolerance)
        _compare(self.blocks, measured.norms2[one], expected[1], expected[1], tolerance)

    def _norms2(self, gradient: Gradient) -> Tensor:
        norms2 = torch.zeros(len(self.blocks), dtype=torch.float64)
        for name, value in gradient.items():
            norms2[self._block[name]] += value.double().square().sum().cpu()
        return norms2

    def _influences(
        self, batch: TeacherForced, values: Tensor, parameters: dict[str, ParameterGradients]
    ) -> Influences:
        samples, count = len(batch.targets), len(next(iter(self.targets.values())))
        norms2 = torch.zeros(samples, len(self.blocks), dtype=torch.float64, device=values.device)
        dots = norms2.new_zeros(samples, count, len(self.blocks))
        for name, parameter in parameters.items():
            for reduced in parameter.reduced:
                norms2[:, self._block[name]] += reduced.norm2
                dots[:, :, self._block[name]] += reduced.dots
        return Influences(batch.mask.sum(1).cpu(), values.detach().double().cpu(), norms2.cpu(), dots.cpu())


def block_of(name: str) -> str:
    """The layer, or part of the model outside its layers, that a parameter's name places it in."""
    parts = name.split(".")[:-1] or [name]
    kept = ".".join([part for part in parts if part not in WRAPPERS] or parts) + "."
    if numbered := NUMBERED.match(kept):
        return numbered[1]
    first, *rest = kept.rstrip(".").split(".")
    return ".".join([first, *rest[:1]]) if first in TOWERS else first


def _stack(name: str, value: Tensor, targets: Sequence[Gradient]) -> Tensor:
    """One parameter's part of every target (targets, numel), in the precision that samples are reduced in.

    On the first target's device: targets that lie in the host's memory are moved as they are used.
    """
    for index, target in enumerate(targets):
        if name not in target or target[name].shape != value.shape:
            found = f"has shape {tuple(target[name].shape)}" if name in target else "is missing"
            raise UserError(
                f"influence: `{name}` {found} in target {index} and has shape {tuple(value.shape)} in the model; "
                "make targets from the same model with the same parameters selected"
            )
    where = targets[0][name].device if targets else value.device
    parts = [target[name].to(where, wide(value.dtype)).reshape(-1) for target in targets]
    return torch.stack(parts) if parts else value.new_zeros(0, value.numel(), dtype=wide(value.dtype))


def _refuse_unknown(target: Gradient, selected: Gradient) -> None:
    for name in target:
        if name not in selected:
            raise UserError(
                f"influence: `{name}` is in a target and not among the model's selected parameters; "
                "make targets from the same model with the same parameters selected"
            )


def _only(sample: int) -> Objective:
    return lambda logits, batch: log_likelihood(logits, batch) * (torch.arange(len(logits)).to(logits.device) == sample)


def _compare(blocks: list[str], measured: Tensor, expected: Tensor, scale: Tensor, tolerance: float) -> None:
    for block, found, wanted, size in zip(blocks, *map(Tensor.tolist, (measured, expected, scale)), strict=True):
        if not math.isfinite(wanted):
            raise UserError(
                f"influence: autograd's gradient of block {block} is not finite, so nothing can be held against it; "
                "leave out the samples whose `finite` is false"
            )
        if not abs(found - wanted) <= tolerance * max(size, wanted):
            raise UserError(
                f"influence: the per-sample gradients of block {block} do not add up to autograd's ({found:.6g} "
                f"instead of {wanted:.6g}), so something uses its weights without calling their module; "
                "freeze it or choose other layers"
            )
