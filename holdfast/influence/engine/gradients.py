"""Gradients of what a model finds probable, by ordinary autograd: the targets that samples are held against."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from holdfast.errors import UserError
from holdfast.models.encode import TeacherForced
from holdfast.models.prompt_sharing import can_share, shared_prompts

Gradient = dict[str, Tensor]
"""Of each selected parameter, by its name in `model.named_parameters()`, shaped like the parameter."""

Objective = Callable[[Tensor, TeacherForced], Tensor]
"""From logits (samples, tokens, vocabulary) and their batch to one number a sample (samples,), to be ascended."""

Logits = Callable[[Any, TeacherForced], Tensor]
"""From a model and a batch to the logits (samples, tokens, vocabulary) that predict the completions' tokens."""


def log_likelihood(logits: Tensor, batch: TeacherForced) -> Tensor:
    """Σ_t log π(y_t) of each sample over its real tokens, in nats; at least in float32."""
    logits = logits.to(wide(logits.dtype))
    logprobs = logits.gather(-1, batch.targets[..., None]).squeeze(-1) - logits.logsumexp(-1)
    return logprobs.masked_fill(~batch.mask, 0.0).sum(1)


def completion_logits(model: Any, batch: TeacherForced) -> Tensor:
    """Logits (samples, tokens, vocabulary) that predict the completions' tokens."""
    return model(**batch.inputs, use_cache=False, logits_to_keep=batch.targets.shape[1] + 1).logits[:, :-1]


def shared_completion_logits(model: Any, batch: TeacherForced) -> Tensor:
    """The same up to rounding; where the architecture allows it, a prompt is read once for all of its completions.

    So no layer's rows belong to one sample, and nothing per sample can be captured.
    """
    if not can_share(model):
        return completion_logits(model, batch)
    tokens = batch.targets.shape[1]
    with shared_prompts(model, batch.inputs["input_ids"].shape[1] - tokens):
        return model(**batch.inputs, use_cache=False, logits_to_keep=tokens).logits


def batch_gradient(
    model: Any, batch: TeacherForced, objective: Objective = log_likelihood, logits: Logits = completion_logits
) -> Gradient:
    """The gradient of the samples' summed objective with respect to every parameter that requires one."""
    return batch_gradients(model, batch, [objective], logits)[0]


def batch_gradients(
    model: Any, batch: TeacherForced, objectives: Sequence[Objective], logits: Logits = completion_logits
) -> list[Gradient]:
    """The gradient of each of several objectives, from one forward pass."""
    selected = selection(model)
    with evaluating(model), torch.enable_grad():
        found = logits(model, batch)
        totals = [objective(found, batch).sum() for objective in objectives]
        parts = [_derivatives(total, list(selected.values()), total is not totals[-1]) for total in totals]
    return [dict(zip(selected, part, strict=True)) for part in parts]


def mean_gradient(
    model: Any, batches: Iterable[TeacherForced], objective: Objective = log_likelihood, *, per_token: bool = False
) -> Gradient:
    """The mean over all samples of the objective's gradient, `per_token` of each sample's objective over its tokens.

    Accumulated in float32, or in float64 if the model is.

    Raises:
        UserError: there is no sample, or one without a supervised token.
    """
    [total], samples = summed_gradients(model, batches, [by_token(objective) if per_token else objective])
    return {name: value / samples for name, value in total.items()}


def summed_gradients(
    model: Any, batches: Iterable[TeacherForced], objectives: Sequence[Objective]
) -> tuple[list[Gradient], int]:
    """Of each objective the sum over all samples, and how many samples these are; otherwise as `mean_gradient`."""
    selected = selection(model)
    sums = [
        {name: torch.zeros_like(value, dtype=wide(value.dtype)) for name, value in selected.items()} for _ in objectives
    ]
    samples = 0
    for batch in batches:
        require_supervised(batch)
        for total, gradient in zip(sums, batch_gradients(model, batch, objectives), strict=True):
            for name, part in gradient.items():
                total[name] += part
        samples += len(batch.targets)
    if not samples:
        raise UserError("influence: a mean gradient needs at least one sample; give its benchmark some questions")
    return sums, samples


def selection(model: Any) -> dict[str, Tensor]:
    """The parameters that require a gradient, by name; one that is used under several names comes once."""
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def require_supervised(batch: TeacherForced) -> None:
    """Refuse a sample that supervises nothing, whose direction would be undefined.

    Raises:
        UserError: a sample has no supervised token.
    """
    for index, tokens in enumerate(batch.mask.sum(1).tolist()):
        if not tokens:
            raise UserError(f"influence: sample {index} of the batch has no supervised token; leave it out")


def wide(dtype: torch.dtype) -> torch.dtype:
    """The precision to reduce in: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Without dropout or gradient checkpointing, both of which are active in training mode only."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def by_token(objective: Objective) -> Objective:
    """Each sample's objective over its tokens."""
    return lambda logits, batch: objective(logits, batch) / batch.mask.sum(1)


def _derivatives(total: Tensor, parameters: list[Tensor], again: bool) -> list[Tensor]:
    """Zeros where the total does not depend on a parameter, as on a vision tower in a batch without images."""
    if not total.requires_grad:
        return [torch.zeros_like(value) for value in parameters]
    return list(torch.autograd.grad(total, parameters, retain_graph=again, allow_unused=True, materialize_grads=True))


def added(parts: Sequence[Gradient]) -> Gradient:
    """Their sum."""
    return {name: torch.stack([part[name] for part in parts]).sum(0) for name in parts[0]}


def placed(gradient: Gradient, where: torch.device | None) -> Gradient:
    """On a device, for example in the host's memory; without one, where it is."""
    return gradient if where is None else {name: value.to(where) for name, value in gradient.items()}


def scaled(gradient: Gradient, factor: float) -> Gradient:
    """A multiple of it."""
    return {name: value * factor for name, value in gradient.items()}
