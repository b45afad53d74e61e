"""Several processes sample, each its own rows of a batch, what one process would sample for the whole batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from holdfast import group

_multinomial = torch.multinomial


@contextmanager
def drawn_as_one(rows: int | None = None, first: int | None = None) -> Iterator[None]:
    """Within, every process draws the random numbers of all `rows` and uses those of its own, which begin at `first`;
    by default each has as many, one process after another.

    All must have the same random state and come here together, with a row at least; they leave with the same state,
    however many tokens each took. transformers samples by `torch.multinomial`, which takes of a row the place with the
    largest p/q, with q from an exponential distribution.
    """
    if group.size() == 1:
        yield
        return
    own = _Rows(rows, first)
    torch.multinomial = own.draw  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.multinomial = _multinomial
    own.catch_up()


class _Rows:
    """This process's, among those of all."""

    def __init__(self, total: int | None, first: int | None) -> None:
        self.total, self.first = total, first
        self.drawn = 0
        self.like = torch.empty(0)

    def draw(self, probabilities: Tensor, num_samples: int, *rest: Any, **named: Any) -> Tensor:
        """A place in each row; what cannot be sampled from is left to torch to refuse."""
        if num_samples != 1 or not probabilities.isfinite().all():
            return _multinomial(probabilities, num_samples, *rest, **named)
        self.drawn, self.like = self.drawn + 1, probabilities
        return (probabilities / self._noise()).argmax(-1, keepdim=True)

    def catch_up(self) -> None:
        """Draw for the tokens that others still had to write."""
        for _ in range(max(group.of_all([self.drawn])) - self.drawn):
            self._noise()

    def _noise(self) -> Tensor:
        rows, places = self.like.shape
        total = rows * group.size() if self.total is None else self.total
        first = rows * group.number() if self.first is None else self.first
        return self.like.new_empty(total, places).exponential_()[first:][:rows]
