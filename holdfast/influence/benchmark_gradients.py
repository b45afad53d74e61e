"""A benchmark's questions as two disjoint halves: their gradients, and those of random logits in their place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from holdfast.influence.checkpoints import inner
from holdfast.influence.engine.gradients import Gradient, by_token, scaled, summed_gradients
from holdfast.influence.engine.likelihood import Certainty, Likelihood, RandomLogits
from holdfast.influence.samples import Material, Sample


class Asked(NamedTuple):
    """What one pass over a benchmark's questions gives."""

    a: Gradient
    """Mean gradient per token of the even questions."""
    b: Gradient
    """The same of the odd ones."""
    certainty: Certainty
    """Of the even questions, then of the odd ones."""
    noisy: list[tuple[Gradient, Gradient]]
    """By probe, the halves' gradients of random logits, summed over the root of the questions' number."""

    @property
    def norm2(self) -> float:
        """Of the mean of the halves."""
        return (inner(self.a, self.a) + inner(self.b, self.b) + 2 * inner(self.a, self.b)) / 4


def ask(model: Any, questions: Sequence[Sample], material: Material, noises: Sequence[RandomLogits]) -> Asked:
    """Both kinds of gradient from the same forward passes.

    Raises:
        UserError: there are fewer than two questions.
    """
    likelihood = Likelihood()
    means: list[Gradient] = []
    noisy: list[list[Gradient]] = []
    for first in (0, 1):
        batches = material.batches(questions[first::2], model.device)
        [total, *random], count = summed_gradients(model, batches, [by_token(likelihood), *noises])
        means.append(scaled(total, 1 / count))
        noisy.append([scaled(gradient, count**-0.5) for gradient in random])
    return Asked(means[0], means[1], likelihood.certainty, list(zip(*noisy, strict=True)))
