"""A tiny training in float64 that is taken down step by step, without any trainer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from unlike import batch_of, texts

from holdfast.influence.engine.gradients import batch_gradient, completion_logits, selection
from holdfast.influence.replay.attribution import Learned, Recording, token_log_likelihood
from holdfast.influence.replay.steps import StepFacts, StepStore, clip_factor, parameter_steps

LIMIT = 0.5
"""Of the gradient's norm: small enough that some steps are clipped."""
STEPS = 6
NODES = (0, 2, 6)


class Trained(NamedTuple):
    """A training, and what it learned from at each step."""

    model: Any
    recording: Recording
    steps: Sequence[Sequence[Learned]]
    optimizer: torch.optim.Optimizer


def taught(steps: int = STEPS, penalty: bool = False) -> list[list[Learned]]:
    """Of every step two batches of unlike samples with unlike weights."""
    rng = torch.Generator().manual_seed(7)
    found = []
    for step in range(steps):
        parts = []
        for half in range(2):
            batch = batch_of(texts(40, [(4, 5), (6, 3), (5, 4)], seed=10 * step + half))
            drawn = torch.rand(2, *batch.targets.shape, generator=rng, dtype=torch.float64)
            weights = (drawn[0] * batch.mask) / 20
            parts.append(Learned(batch, weights, (drawn[1] - 0.5) * batch.mask / 20 if penalty else None))
        found.append(parts)
    return found


def adamw(parameters: Any, **changes: Any) -> torch.optim.Optimizer:
    """With a rate so large that all of it shows, and ε so large that it counts."""
    return torch.optim.AdamW(parameters, **{"lr": 1e-2, "weight_decay": 0.1, "eps": 1e-3, **changes})


def train(
    model: Any,
    steps: Sequence[Sequence[Learned]],
    place: Path,
    optimizer: Callable[..., torch.optim.Optimizer] = adamw,
    clipped: float = LIMIT,
) -> Trained:
    """Take the steps, with a rate that falls; the gradient is that of the weights and penalties."""
    optimize = optimizer(list(selection(model).values()))
    rate = optimize.param_groups[0]["lr"]
    store, facts = StepStore(place), []
    store.keep(0, model, None)
    for step, parts in enumerate(steps, start=1):
        optimize.zero_grad()
        for part in parts:
            loss(model, part).backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), clipped)
        for group in optimize.param_groups:
            group["lr"] = rate * (1 - step / (2 * len(steps)))
        optimize.step()
        facts.append(StepFacts(parameter_steps(model, optimize), clip_factor(float(norm), clipped)))
        store.keep(step, model, optimize)
    return Trained(model, Recording(store, facts, lambda step: steps[step - 1]), steps, optimize)


def loss(model: Any, part: Learned) -> Any:
    """−Σ w log π of all tokens, penalties among them."""
    weights = part.weights if part.penalty is None else part.weights + part.penalty
    found = token_log_likelihood(completion_logits(model, part.batch), part.batch, part.temperature)
    return -(found * weights).masked_fill(~part.batch.mask, 0.0).sum()


def gradient_of(model: Any, part: Learned, row: int) -> dict[str, torch.Tensor]:
    """Of one sample's Σ w log π."""
    return batch_gradient(model, part.batch, lambda logits, batch: part.objective(part.weights)(logits, batch)[row])
