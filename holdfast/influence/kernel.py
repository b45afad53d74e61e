"""The norm of the empirical neural tangent kernel of samples and questions, by sample and by random-logit probe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from holdfast.influence.engine import Engine
from holdfast.influence.gradients import added, batch_gradient, scaled
from holdfast.influence.likelihood import RandomLogits
from holdfast.influence.material import Sample, Sheet
from holdfast.models.encode import TeacherForced


def probed(model: Any, batches: list[TeacherForced], sheet: Sheet, seed: int) -> dict[str, np.ndarray]:
    """By benchmark, squared dots of samples and questions with random logits on both sides (probes, samples).

    Every sample has noise of its own; a probe's noise on the questions is the same for all of them.
    """
    squares: dict[str, list[np.ndarray]] = {name: [] for name in sheet.questions}
    for probe in range(sheet.probes):
        noise = [RandomLogits(_stream(seed, probe, side)) for side in (0, 1)]
        targets = []
        for questions in sheet.questions.values():
            parts = [batch_gradient(model, b, noise[0]) for b in sheet.material.batches(questions, model.device)]
            targets.append(scaled(added(parts), len(questions) ** -0.5))
        engine = Engine(model, targets)
        dots = np.concatenate([engine.measure(batch, noise[1]).dots.sum(-1).numpy() for batch in batches])
        for place, name in enumerate(squares):
            squares[name].append(dots[:, place] ** 2)
    return {name: np.stack(found) for name, found in squares.items()}


def mean_length(samples: Sequence[Sample]) -> float:
    """In tokens of their completions."""
    return float(np.mean([len(sample.completion) for sample in samples]))


def _stream(seed: int, probe: int, side: int) -> int:
    """Another stream for every probe and side."""
    return (seed * 1_000_003 + probe * 2 + side) % 2**63
