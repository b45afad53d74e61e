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
def drawn_as_one() -> Iterator[None]:
    """Within, every process draws the random numbers of all rows and uses those of its own.

    All must have the same random state, batches of one size, and come here together; they leave with the same state,
    however many tokens each took. transformers samples by `torch.multinomial`, which takes of a row the place with the
    largest p/q, with q from an exponential distribution.
    """
    if group.size() == 1:
        yield
        return
    rows = _Rows()
    torch.multinomial = rows.draw  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.multinomial = _multinomial
    rows.catch_up()


class _Rows:
    """This process's, among those of all."""

    def __init__(self) -> None:
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
        everybody = self.like.new_empty(rows * group.size(), places).exponential_()
        return everybody[rows * group.number() :][:rows]
