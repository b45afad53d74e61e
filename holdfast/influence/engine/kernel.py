"""The norm of the empirical neural tangent kernel of samples and questions, by sample and by random-logit probe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from holdfast.influence.engine.engine import Engine
from holdfast.influence.engine.gradients import Gradient
from holdfast.influence.engine.likelihood import RandomLogits
from holdfast.influence.samples import Sample
from holdfast.models.encode import TeacherForced

QUESTIONS, SAMPLES = 0, 1
"""The sides of a kernel, each with noise of its own."""


def noises(probes: int, seed: int, side: int) -> list[RandomLogits]:
    """Another stream for every probe and side."""
    return [RandomLogits((seed * 1_000_003 + probe * 2 + side) % 2**63) for probe in range(probes)]


def probed(
    model: Any, batches: list[TeacherForced], targets: Mapping[str, Sequence[Sequence[Gradient]]], seed: int
) -> dict[str, np.ndarray]:
    """By benchmark, squared dots of samples and questions with random logits on both sides (2 probes, samples).

    `targets` are `Asked.noisy` by benchmark. Two halves of its questions, each with own noise, halve the variance
    and let what a single probe drew be redrawn. Every sample has noise of its own, too.
    """
    squares: dict[str, list[np.ndarray]] = {name: [] for name in targets}
    by_probe = list(zip(*targets.values(), strict=True))
    for noise, halves in zip(noises(len(by_probe), seed, SAMPLES), by_probe, strict=True):
        engine = Engine(model, [half for pair in halves for half in pair])
        dots = np.concatenate([engine.measure(batch, noise).dots.sum(-1).numpy() for batch in batches])
        for place, name in enumerate(squares):
            squares[name] += [dots[:, 2 * place + half] ** 2 for half in (0, 1)]
    return {name: np.stack(found) for name, found in squares.items()}


def mean_length(samples: Sequence[Sample]) -> float:
    """In tokens of their completions."""
    return float(np.mean([len(sample.completion) for sample in samples]))
