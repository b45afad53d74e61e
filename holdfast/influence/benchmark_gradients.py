"""What samples are held against: the gradients of a benchmark's questions, and of random logits in their place.

The questions are taken as two disjoint halves. The product of the halves' gradients is ‖V‖² without what few questions
add to it, and halves with noise of their own halve the variance of a random-logit probe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from holdfast.errors import UserError
from holdfast.influence.checkpoints import inner
from holdfast.influence.engine.engine import Engine
from holdfast.influence.engine.gradients import Gradient, added, by_token, placed, scaled, summed_gradients
from holdfast.influence.engine.likelihood import Certainty, Likelihood, RandomLogits
from holdfast.influence.samples import Sample, SampleEncoder
from holdfast.models.encode import TeacherForced

QUESTIONS, SAMPLES = 0, 1
"""The sides of a kernel, each with noise of its own."""


class BenchmarkQuestions(NamedTuple):
    """What every checkpoint is measured on: each benchmark's questions, and the number of random-logit probes."""

    samples: Mapping[str, Sequence[Sample]]
    encoder: SampleEncoder
    probes: int
    held: torch.device | None = None
    """Where gradients lie; by default where they were computed."""


class BenchmarkGradients(NamedTuple):
    """What one pass over a benchmark's questions gives."""

    a: Gradient
    """Mean gradient per token of the even questions."""
    b: Gradient
    """The same of the odd ones."""
    certainty: Certainty
    """Of the even questions, then of the odd ones."""
    probes: list[tuple[Gradient, Gradient]]
    """By probe, the halves' gradients of random logits, summed over the root of the questions' number."""
    mean_tokens: float
    """Of the questions' reference completions."""

    @property
    def mean(self) -> Gradient:
        """Mean of the halves."""
        return scaled(added([self.a, self.b]), 0.5)

    @property
    def norm2(self) -> float:
        """Squared norm of the mean of the halves."""
        return (inner(self.a, self.a) + inner(self.b, self.b) + 2 * inner(self.a, self.b)) / 4


def benchmark_gradients(model: Any, questions: BenchmarkQuestions, seed: int) -> dict[str, BenchmarkGradients]:
    """By benchmark, at the model's present weights.

    Raises:
        UserError: a benchmark has fewer than two questions, or its gradient is not finite.
    """
    noises = random_logits(questions.probes, seed, QUESTIONS)
    found = {
        name: question_gradients(model, samples, questions.encoder, noises, questions.held)
        for name, samples in questions.samples.items()
    }
    for name, gradients in found.items():
        if not np.isfinite(inner(gradients.a, gradients.a) + inner(gradients.b, gradients.b)):
            raise UserError(
                f"influence: the gradient of benchmark {name} is not finite at this checkpoint, so nothing can be held "
                "against it; trace earlier steps (`--step`), or train at a lower rate"
            )
    return found


def question_gradients(
    model: Any,
    questions: Sequence[Sample],
    encoder: SampleEncoder,
    noises: Sequence[RandomLogits],
    held: torch.device | None = None,
) -> BenchmarkGradients:
    """Of the log-likelihood and of random logits, from the same forward passes.

    Raises:
        UserError: there are fewer than two questions.
    """
    likelihood = Likelihood()
    means: list[Gradient] = []
    probes: list[list[Gradient]] = []
    for first in (0, 1):
        batches = encoder.batches(questions[first::2], model.device)
        [total, *random], count = summed_gradients(model, batches, [by_token(likelihood), *noises])
        means.append(placed(scaled(total, 1 / count), held))
        probes.append([placed(scaled(gradient, count**-0.5), held) for gradient in random])
    mean_tokens = float(np.mean([len(question.completion) for question in questions]))
    return BenchmarkGradients(means[0], means[1], likelihood.certainty, list(zip(*probes, strict=True)), mean_tokens)


def random_logits(probes: int, seed: int, side: int) -> list[RandomLogits]:
    """Another stream for every probe and side."""
    return [RandomLogits((seed * 1_000_003 + probe * 2 + side) % 2**63) for probe in range(probes)]


def kernel_dots(
    model: Any,
    batches: Sequence[TeacherForced],
    probes: Mapping[str, Sequence[tuple[Gradient, Gradient]]],
    seed: int,
) -> dict[str, np.ndarray]:
    """By benchmark, dots of samples and questions with random logits on both sides (2 probes, samples).

    The mean of their squares is that of ‖K‖²_F, the squared norm of the eNTK. `probes` are `BenchmarkGradients.probes`
    by benchmark. The halves, each with own noise, let what a single probe drew be redrawn. Every sample has noise of
    its own, too.
    """
    found: dict[str, list[np.ndarray]] = {name: [] for name in probes}
    by_probe = list(zip(*probes.values(), strict=True))
    for noise, halves in zip(random_logits(len(by_probe), seed, SAMPLES), by_probe, strict=True):
        engine = Engine(model, [half for pair in halves for half in pair])
        dots = np.concatenate([engine.measure(batch, noise).dots.sum(-1).numpy() for batch in batches])
        for index, name in enumerate(found):
            found[name] += [dots[:, 2 * index + half] for half in (0, 1)]
    return {name: np.stack(own) for name, own in found.items()}
