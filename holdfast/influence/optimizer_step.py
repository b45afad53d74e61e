"""Whether the linear theory holds for a step that an optimizer really took.

A step moves the parameters by Δθ. The change of a benchmark's mean log-likelihood is predicted from gradients alone
and measured by evaluating again; scaled down to α Δθ, the first-order residual must shrink as α², that of the
trapezoid as α³. A wrong gradient, sign or scale leaves a residual that shrinks as α. Use float64: in float32, rounding
hides the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from holdfast.influence.checkpoints import displacement, inner, weights
from holdfast.influence.engine.gradients import (
    Gradient,
    batch_gradient,
    completion_logits,
    evaluating,
    log_likelihood,
    mean_gradient,
)
from holdfast.models.encode import TeacherForced

SCALES = (1.0, 0.5, 0.25)


class Residual(NamedTuple):
    """A step scaled by α: the measured change, and what the predictions missed."""

    scale: float
    measured: float
    first_order: float
    trapezoid: float


def optimizer_step(model: Any, batch: TeacherForced, optimizer: torch.optim.Optimizer) -> Gradient:
    """One ascent step on the batch's mean log-likelihood per token; returns Δθ, and leaves the model where it led."""
    before = _copies(model)
    tokens = int(batch.mask.sum())
    gradient = batch_gradient(model, batch)
    for name, parameter in model.named_parameters():
        if name in gradient:
            parameter.grad = -gradient[name] / tokens
    optimizer.step()
    optimizer.zero_grad()
    return displacement(weights(model), before)


def residuals(
    model: Any, questions: Sequence[TeacherForced], step: Gradient, scales: Sequence[float] = SCALES
) -> list[Residual]:
    """Predicted against measured changes along α Δθ from where the model is; leaves it there."""
    start = _copies(model)
    slope = inner(mean_gradient(model, questions, per_token=True), step)
    before = mean_likelihood(model, questions)
    found = []
    for scale in scales:
        _place(model, {name: start[name] + scale * step[name] for name in start})
        measured = mean_likelihood(model, questions) - before
        arrived = inner(mean_gradient(model, questions, per_token=True), step)
        predicted = scale * slope
        found.append(Residual(scale, measured, measured - predicted, measured - (predicted + scale * arrived) / 2))
    _place(model, start)
    return found


def _copies(model: Any) -> Gradient:
    return {name: value.clone() for name, value in weights(model).items()}


def order(found: Sequence[Residual], kind: Callable[[Residual], float]) -> float:
    """The exponent p of |residual| ∝ α^p, by least squares on logarithms."""
    scales = np.log([residual.scale for residual in found])
    sizes = np.log([abs(kind(residual)) for residual in found])
    return float(np.polyfit(scales, sizes, 1)[0])


@torch.no_grad()
def mean_likelihood(model: Any, questions: Sequence[TeacherForced]) -> float:
    """Mean over questions of the mean log-likelihood per token."""
    with evaluating(model):
        values = [log_likelihood(completion_logits(model, batch), batch) / batch.mask.sum(1) for batch in questions]
    return float(torch.cat(values).double().mean())


@torch.no_grad()
def _place(model: Any, values: Gradient) -> None:
    for name, parameter in model.named_parameters():
        if name in values:
            parameter.copy_(values[name])
