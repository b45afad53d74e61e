"""The trajectory of a training: what its steps were predicted to do to every question, and what they did.

Between two checkpoints θ and θ', first order predicts ⟨∇ℓ(θ), θ' − θ⟩; the trapezoid ½⟨∇ℓ(θ) + ∇ℓ(θ'), θ' − θ⟩ is
exact to third order. ℓ is the mean log-likelihood per token of the question's reference completion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from holdfast.influence import measures
from holdfast.influence.engine.engine import Engine
from holdfast.influence.engine.gradients import Gradient
from holdfast.influence.samples import Sample, SampleEncoder


class Trajectory:
    """Measures the checkpoints in order and remembers each question's slope along the steps before and after."""

    def __init__(self, questions: Mapping[str, Sequence[Sample]], encoder: SampleEncoder) -> None:
        self.questions = [(name, sample) for name, samples in questions.items() for sample in samples]
        self.encoder = encoder
        self.tokens = np.array([len(sample.completion) for _, sample in self.questions], dtype=float)
        self.rows: list[dict[str, Any]] = []
        self.before: tuple[int, np.ndarray, np.ndarray] | None = None

    def add(self, step: int, likelihood: np.ndarray, slopes: np.ndarray, last: bool) -> None:
        """Take what `measured` gave at a checkpoint: slopes to the next one, unless it is the `last`, and from the one
        before, if there was one."""
        if self.before is not None:
            start, earlier, slope = self.before
            self._add_rows((start, step), likelihood - earlier, slope, slopes[:, -1])
        self.before = None if last else (step, likelihood, slopes[:, 0])

    def measured(self, model: Any, displacements: list[Gradient]) -> tuple[np.ndarray, np.ndarray]:
        """ℓ of all questions (questions,) and its slopes along the displacements (questions, displacements).

        Slopes are in the parameters that require a gradient, and add up over parts of them.
        """
        engine = Engine(model, displacements)
        samples = [sample for _, sample in self.questions]
        parts = [engine.measure(batch) for batch in self.encoder.batches(samples, model.device)]
        likelihood = np.concatenate([part.loglik.numpy() for part in parts]) / self.tokens
        slopes = np.concatenate([part.dots.sum(-1).numpy() for part in parts]) / self.tokens[:, None]
        return likelihood, slopes

    def _add_rows(self, steps: tuple[int, int], measured: np.ndarray, slope: np.ndarray, arrived: np.ndarray) -> None:
        for index, (benchmark, sample) in enumerate(self.questions):
            self.rows.append(
                {
                    "benchmark": benchmark,
                    "id": sample.prompt,
                    "start": steps[0],
                    "step": steps[1],
                    "measured": measured[index],
                    "first_order": slope[index],
                    "trapezoid": (slope[index] + arrived[index]) / 2,
                }
            )

    def changes(self, benchmark: str, step: int) -> np.ndarray:
        """Of log π, summed over each reference's tokens, from the last checkpoint to this one (questions,)."""
        per_token = [r["measured"] for r in self.rows if r["benchmark"] == benchmark and r["step"] == step]
        return np.array(per_token) * self.tokens[[name == benchmark for name, _ in self.questions]]

    def measures(self, target: str) -> dict[str, float]:
        """Along the whole training: each benchmark's change, measured and predicted, and how well they agree.

        Agreement is over prior questions, between consecutive checkpoints, with the first-order prediction.
        """
        found = {}
        for benchmark in dict.fromkeys(name for name, _ in self.questions):
            rows = [row for row in self.rows if row["benchmark"] == benchmark]
            questions = len({row["id"] for row in rows})
            for kind in ("measured", "first_order", "trapezoid"):
                found[f"{benchmark}/change_{kind}"] = sum(row[kind] for row in rows) / questions
        prior = [row for row in self.rows if row["benchmark"] != target]
        measured = np.array([row["measured"] for row in prior])
        for kind in ("first_order", "trapezoid"):
            agreed = measures.agreement(np.array([row[kind] for row in prior]), measured)
            found |= {f"{name}_{kind}": value for name, value in agreed.items()}
        return found
