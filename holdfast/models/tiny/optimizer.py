"""How the bundled model is optimized: steps on parts of a batch at the same time, and Muon for matrices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import get_cosine_schedule_with_warmup

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of the Newton–Schulz iteration, chosen for a steep start: singular values end between 0.7 and 1.2."""


class TrainingPhase:
    """Optimizer steps of one phase of training; learning rates rise in a tenth of them and fall as a cosine.

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


class Muon(torch.optim.Optimizer):
    """Momentum whose matrices are orthogonalised, so that every direction moves alike (Jordan et al. 2024).

    A step is scaled to the root mean square of an AdamW step (Liu et al. 2025, 0.2·√max(m, n)). torch.optim.Muon
    orthogonalises in bfloat16, which takes a CPU without such units four times as long as the rest of a step; this one
    stays in the parameters' own precision. `threads` orthogonalise different matrices at the same time, which changes
    no result.
    """

    def __init__(self, matrices: list[torch.nn.Parameter], lr: float, momentum: float = 0.95, threads: int = 1) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum})
        self.pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step with Nesterov momentum."""
        for group in self.param_groups:
            momenta = [self._lookahead(matrix, group["momentum"]) for matrix in group["params"]]
            directions = self.pool.map(orthogonal, momenta)
            for matrix, direction in zip(group["params"], directions, strict=True):
                matrix.add_(direction, alpha=-group["lr"] * 0.2 * max(matrix.shape) ** 0.5)

    def _lookahead(self, matrix: Any, momentum: float) -> Tensor:
        velocity = self.state[matrix].setdefault("velocity", torch.zeros_like(matrix))
        velocity.lerp_(matrix.grad, 1 - momentum)
        return matrix.grad.lerp(velocity, momentum)


@torch.no_grad()
def orthogonal(matrix: Tensor, iterations: int = 5) -> Tensor:
    """The matrix with all singular values brought near 1."""
    a, b, c = QUINTIC
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / wide.norm().clamp(min=1e-7)
    for _ in range(iterations):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T
