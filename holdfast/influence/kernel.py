"""The norm of the empirical neural tangent kernel of samples and questions, by sample and by random-logit probe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from holdfast.influence.engine import Engine
from holdfast.influence.gradients import Gradient, added, batch_gradient, scaled
from holdfast.influence.likelihood import RandomLogits
from holdfast.influence.material import Material, Sample, Sheet
from holdfast.models.encode import TeacherForced


def probed(model: Any, batches: list[TeacherForced], sheet: Sheet, seed: int) -> dict[str, np.ndarray]:
    """By benchmark, squared dots of samples and questions with random logits on both sides (2 probes, samples).

    Every sample has noise of its own in each pass. A benchmark's questions are probed as two halves, whose noise is
    independent: that costs no pass, halves the variance, and lets what a single probe drew be redrawn.
    """
    squares: dict[str, list[np.ndarray]] = {name: [] for name in sheet.questions}
    for probe in range(sheet.probes):
        noise = [RandomLogits(_stream(seed, probe, side)) for side in (0, 1)]
        targets = []
        for questions in sheet.questions.values():
            targets += [_noisy(model, half, sheet.material, noise[0]) for half in (questions[0::2], questions[1::2])]
        engine = Engine(model, targets)
        dots = np.concatenate([engine.measure(batch, noise[1]).dots.sum(-1).numpy() for batch in batches])
        for place, name in enumerate(squares):
            squares[name] += [dots[:, 2 * place + half] ** 2 for half in (0, 1)]
    return {name: np.stack(found) for name, found in squares.items()}


def _noisy(model: Any, questions: Sequence[Sample], material: Material, noise: RandomLogits) -> Gradient:
    """Of random logits, over the root of the questions' number, so that a squared dot is a mean over questions."""
    parts = [batch_gradient(model, batch, noise) for batch in material.batches(questions, model.device)]
    return scaled(added(parts), len(questions) ** -0.5)


def mean_length(samples: Sequence[Sample]) -> float:
    """In tokens of their completions."""
    return float(np.mean([len(sample.completion) for sample in samples]))


def _stream(seed: int, probe: int, side: int) -> int:
    """Another stream for every probe and side."""
    return (seed * 1_000_003 + probe * 2 + side) % 2**63
