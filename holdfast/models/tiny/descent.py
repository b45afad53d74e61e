"""Optimizer steps on batches whose parts go through the model at the same time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import get_cosine_schedule_with_warmup


class Descent:
    """Steps of one phase of training; learning rates rise in a tenth of them and fall as a cosine.

    At a few hundred hidden units, two threads on two halves of a batch are faster than two threads on every
    operation, and a neighbour on the machine costs them its share and no more. Gradients are added in the order of the
    parts, so that the number of threads changes nothing.
    """

    def __init__(self, optimizers: list[torch.optim.Optimizer], steps: int, threads: int) -> None:
        self.optimizers = optimizers
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        self.parameters = [parameter for group in groups for parameter in group["params"]]
        self.schedules = [get_cosine_schedule_with_warmup(optimizer, steps // 10, steps) for optimizer in optimizers]
        self.pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.pool.shutdown(cancel_futures=True)

    def step(self, parts: Sequence[Any], loss_of: Callable[[Any], Tensor]) -> float:
        """One step on the sum of the parts' losses, which it returns."""

        def gradients(part: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
            loss = loss_of(part)
            return loss.detach(), torch.autograd.grad(loss, self.parameters)

        losses, of_parts = zip(*self.pool.map(gradients, parts), strict=True)
        for parameter, *grads in zip(self.parameters, *of_parts, strict=True):
            parameter.grad = torch.stack(grads).sum(0)
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimizer, schedule in zip(self.optimizers, self.schedules, strict=True):
            optimizer.step()
            schedule.step()
        return float(sum(losses))
