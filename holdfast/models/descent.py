"""Optimizer steps on batches whose parts go through the model at the same time."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import get_cosine_schedule_with_warmup

LossOf = Callable[[Any], Tensor]
MOST_PARTS = 4
"""Of one step that a process can be given."""


class Descent:
    """Steps of one phase of training; learning rates rise in a tenth of them and fall as a cosine.

    At a few hundred hidden units, half of a step is Python, so threads wait for each other: processes share out the
    parts of a batch. They are forked, and so know whatever `loss_of` refers to; weights and gradients lie in memory
    that they share. Gradients are added in the order of the parts, so that the number of processes changes nothing.
    """

    def __init__(
        self, optimizers: list[torch.optim.Optimizer], steps: int, loss_of: LossOf, processes: int = 1
    ) -> None:
        self.optimizers, self.loss_of = optimizers, loss_of
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        self.parameters: list[nn.Parameter] = [parameter for group in groups for parameter in group["params"]]
        self.schedules = [get_cosine_schedule_with_warmup(optimizer, steps // 10, steps) for optimizer in optimizers]
        forks = processes if processes > 1 and sys.platform == "linux" else 0
        self.workers: list[_Worker] = []
        for _ in range(forks):
            self.workers.append(_Worker(self.parameters, loss_of, [worker.pipe for worker in self.workers]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for worker in self.workers:
            worker.end()

    def step(self, parts: Sequence[Any]) -> float:
        """One step on the sum of the parts' losses, which it returns."""
        losses, gradients = zip(*self._worked(parts), strict=True)
        total = torch.stack(gradients).sum(0)
        for parameter, gradient in zip(self.parameters, _split(total, self.parameters), strict=True):
            parameter.grad = gradient
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimizer, schedule in zip(self.optimizers, self.schedules, strict=True):
            optimizer.step()
            schedule.step()
        return sum(losses)

    def _worked(self, parts: Sequence[Any]) -> list[tuple[float, Tensor]]:
        """Loss and gradient of every part, in their order."""
        if not self.workers:
            return [_gradient(self.loss_of, self.parameters, part) for part in parts]
        turns = _turns(len(parts), len(self.workers))
        for worker, turn in zip(self.workers, turns, strict=True):
            worker.ask([parts[place] for place in turn])
        found = {
            place: one
            for worker, turn in zip(self.workers, turns, strict=True)
            for place, one in zip(turn, worker.answer(), strict=True)
        }
        return [found[place] for place in range(len(parts))]


class _Worker:
    """A forked process that finds gradients.

    Where there is a GPU, autograd refuses to work in a process whose parent ran a backward pass before it forked; one
    that has workers runs none itself.
    """

    def __init__(self, parameters: list[nn.Parameter], loss_of: LossOf, others: list[Connection]) -> None:
        for parameter in parameters:
            parameter.share_memory_()
        context = multiprocessing.get_context("fork")
        self.pipe, end = context.Pipe()
        self.room = torch.zeros(MOST_PARTS, sum(parameter.numel() for parameter in parameters)).share_memory_()
        # A pipe's closing goes unnoticed while any process has this side of it open, too.
        work = partial(_work, end, [self.pipe, *others], self.room, partial(_gradient, loss_of, parameters))
        self.process = context.Process(target=work, daemon=True)
        self.process.start()
        end.close()

    def ask(self, parts: list[Any]) -> None:
        self.pipe.send(parts)

    def answer(self) -> list[tuple[float, Tensor]]:
        """Of the parts that it was asked for. Raises what went wrong there, or EOFError if the process is gone."""
        losses = self.pipe.recv()
        if isinstance(losses, Exception):
            raise losses
        return list(zip(losses, self.room, strict=False))

    def end(self) -> None:
        self.pipe.close()
        self.process.join()


def _work(
    pipe: Connection, others: list[Connection], room: Tensor, gradient_of: Callable[[Any], tuple[float, Tensor]]
) -> None:
    for other in others:
        other.close()
    while True:
        try:
            parts = pipe.recv()
        except EOFError:
            return
        try:
            found = [gradient_of(part) for part in parts]
            for place, (_, gradient) in enumerate(found):
                room[place].copy_(gradient)
            pipe.send([loss for loss, _ in found])
        except Exception as error:
            pipe.send(error)


def _gradient(loss_of: LossOf, parameters: list[nn.Parameter], part: Any) -> tuple[float, Tensor]:
    """The loss of a part, and its gradient in one row."""
    loss = loss_of(part)
    return float(loss.detach()), torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, parameters)])


def _split(row: Tensor, parameters: list[nn.Parameter]) -> list[Tensor]:
    parts = row.split([parameter.numel() for parameter in parameters])
    return [part.view_as(parameter) for part, parameter in zip(parts, parameters, strict=True)]


def _turns(parts: int, workers: int) -> list[list[int]]:
    """Who does which parts, back and forth, so that of sorted parts nobody has all the long ones."""
    turns: list[list[int]] = [[] for _ in range(workers)]
    for place in range(parts):
        there, back = place % workers, workers - 1 - place % workers
        turns[there if place // workers % 2 == 0 else back].append(place)
    return turns
