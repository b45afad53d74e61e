"""Muon (Jordan et al. 2024): momentum whose matrices are orthogonalised, so that every direction moves alike.

torch.optim.Muon orthogonalises in bfloat16, which takes a CPU without such units four times as long as the rest of a
step; this one stays in the parameters' own precision.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of the Newton–Schulz iteration, chosen for a steep start: singular values end between 0.7 and 1.2."""


class Muon(torch.optim.Optimizer):
    """For matrices; the step is scaled to the root mean square of an AdamW step (Liu et al. 2025, 0.2·√max(m, n)).

    `threads` orthogonalise different matrices at the same time, which changes no result.
    """

    def __init__(self, matrices: list[torch.nn.Parameter], lr: float, momentum: float = 0.95, threads: int = 1) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum})
        self.pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step with Nesterov momentum."""
        for group in self.param_groups:
            ways = self.pool.map(orthogonal, [self._ahead(matrix, group["momentum"]) for matrix in group["params"]])
            for matrix, way in zip(group["params"], ways, strict=True):
                matrix.add_(way, alpha=-group["lr"] * 0.2 * max(matrix.shape) ** 0.5)

    def _ahead(self, matrix: Any, momentum: float) -> Tensor:
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
