"""One look at one checkpoint: every sample's gradient against every benchmark's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from holdfast.errors import UserError
from holdfast.influence import measures
from holdfast.influence.benchmark_gradients import Asked, ask
from holdfast.influence.checkpoints import inner, preconditioned
from holdfast.influence.engine import kernel
from holdfast.influence.engine.engine import Engine, Influences
from holdfast.influence.engine.gradients import Gradient, added, batch_gradient, log_likelihood, scaled
from holdfast.influence.engine.likelihood import Likelihood
from holdfast.influence.samples import Material, Sample, Sheet
from holdfast.models.encode import TeacherForced

VERIFIED = 4
"""Samples that are held against autograd: enough to be unlike each other in length."""


class Sight(NamedTuple):
    """What was seen. Columns of `dots` are `targets`: BENCHMARK/a and /b (disjoint halves), adam/BENCHMARK, and
    `sum`, the samples' own Σ w g."""

    samples: Sequence[Sample]
    """Those whose gradients are finite."""
    broken: tuple[str, ...]
    """Ids of the others."""
    blocks: list[str]
    targets: list[str]
    norms2: np.ndarray
    """(samples, blocks)."""
    dots: np.ndarray
    """(samples, targets, blocks)."""
    loglik: np.ndarray
    """Summed over tokens (samples,)."""
    source: measures.Source
    errors: np.ndarray
    """Mean over tokens of ‖π − e_y‖ (samples,)."""
    benchmarks: dict[str, measures.Benchmark]
    spread_norms: dict[str, np.ndarray]
    """By benchmark √(|V|·(mean ‖π‖)² + |V| − 2) of its questions (questions,)."""
    probed: dict[str, np.ndarray]
    """By benchmark, squared dots with random-logit probes, whose mean is that of ‖K‖²_F (probes, samples)."""
    kernels: dict[str, dict[str, float]]
    """`kernel` and `kernel_per_token` by benchmark."""

    def rows(self, source: str, step: int) -> list[dict[str, Any]]:
        """One row for every sample and block; a sample whose gradient is not finite has none."""
        return [
            {
                "sample": sample.id,
                "prompt": sample.prompt,
                "source": source,
                "step": step,
                "block": block,
                "tokens": len(sample.completion),
                "loglik": self.loglik[place],
                "weight": sample.weight,
                "norm2": self.norms2[place, column],
                **{f"dot/{name}": self.dots[place, k, column] for k, name in enumerate(self.targets)},
            }
            for place, sample in enumerate(self.samples)
            for column, block in enumerate(self.blocks)
        ]

    def of_samples(self) -> dict[str, dict[str, float]]:
        """By sample's id, what magnitudes are means of and no block of layers has a part of, by column."""
        certainty = self.source.certainty
        return {
            sample.id: {"certainty": certainty[place], "error": self.errors[place]}
            | {
                f"kernel2/{name}/{probe}": square[place]
                for name, squares in self.probed.items()
                for probe, square in enumerate(squares)
            }
            for place, sample in enumerate(self.samples)
        }

    def measures(self, target: str) -> dict[str, float]:
        """Measures named BENCHMARK/MEASURE, and those of the source alone by their own names.

        `perplexity` is that of the source's text under the model that is looked at.
        """
        alone = measures.of_source(self.source)
        alone["perplexity"] = measures.perplexity(self.loglik, self.source.tokens)
        adam = {name: self._adam(name) for name in self.benchmarks if f"adam/{name}" in self.targets}
        on = {name: measures.on_benchmark(self.source, seen) for name, seen in self.benchmarks.items()}
        named = {name: value for name, value in alone.items() if name not in ("norm", "norm_per_token")}
        for name, found in on.items():
            found |= {key: alone[key] for key in ("norm", "norm_per_token")}
            found |= self.kernels.get(name, {})
            if name in adam:
                found["adam_dot"] = adam[name]
            if name != target:
                found["exchange"] = measures.exchange(found["dot"], on[target]["dot"])
                if name in adam:
                    found["adam_exchange"] = measures.exchange(adam[name], adam[target])
            named |= {f"{name}/{key}": value for key, value in found.items()}
        return named

    def _adam(self, name: str) -> float:
        if not self.source.weights.any():
            return float("nan")
        dots = self.dots[:, self.targets.index(f"adam/{name}")].sum(-1)
        return float((self.source.weights * dots).sum() / self.source.tokens.sum())


def look(model: Any, samples: Sequence[Sample], sheet: Sheet, scale: Gradient | None, seed: int) -> Sight:
    """Measure samples against all benchmarks in one pass, and in a second one against the probes, if any.

    `scale` is Adam's √v̂ + ε; with it, every benchmark is a preconditioned target, too.

    Raises:
        UserError: a benchmark's gradient is not finite, or no sample's is.
    """
    noises = kernel.noises(sheet.probes, seed, kernel.QUESTIONS)
    found = {name: ask(model, questions, sheet.material, noises) for name, questions in sheet.questions.items()}
    _require_finite(found)
    kept, total = _sound(model, samples, sheet.material)
    targets = _targets(found, scale) | {"sum": total}
    batches = list(sheet.material.batches(kept, model.device))
    engine = Engine(model, list(targets.values()))
    likelihood = Likelihood()
    parts = [engine.measure(batch, likelihood) for batch in batches]
    norms2, dots, loglik = (_joined(parts, name) for name in ("norms2", "dots", "loglik"))
    certainty = likelihood.certainty
    source = measures.Source(
        tokens=np.array([len(sample.completion) for sample in kept], dtype=float),
        weights=np.array([sample.weight for sample in kept]),
        norms2=norms2.sum(-1),
        sum_norm2=inner(total, total),
        certainty=certainty.residual,
    )
    names = list(targets)
    seen = {
        name: measures.Benchmark(
            dots=(dots[:, names.index(f"{name}/a")] + dots[:, names.index(f"{name}/b")]).sum(-1) / 2,
            norm2=asked.norm2,
            halves=inner(asked.a, asked.b),
            spread=float(asked.certainty.spread.mean()),
        )
        for name, asked in found.items()
    }
    noisy = {name: asked.noisy for name, asked in found.items()}
    probed = kernel.probed(model, batches, noisy, seed) if sheet.probes else {}
    kernels = {
        name: measures.kernel(squares, source.tokens, kernel.mean_length(sheet.questions[name]))
        for name, squares in probed.items()
    }
    spreads = {name: asked.certainty.spread_norm for name, asked in found.items()}
    sound = {sample.id for sample in kept}
    broken = tuple(sample.id for sample in samples if sample.id not in sound)
    return Sight(
        *(kept, broken, engine.blocks, names, norms2, dots, loglik),
        *(source, certainty.error, seen, spreads, probed, kernels),
    )


def verify(model: Any, samples: Sequence[Sample], material: Material) -> None:
    """Hold the engine against autograd on a few samples of the first batch, those without a finite gradient left out.

    Raises:
        UserError: they disagree, or no sample of the batch has a finite gradient.
    """
    engine = Engine(model, [])
    first = samples[: material.batch_size]
    [batch] = material.batches(first, model.device)
    sound = [sample for sample, finite in zip(first, engine.measure(batch).finite.tolist(), strict=True) if finite]
    if not sound:
        raise UserError(f"influence: sample {first[0].id}, and all of its batch, has no finite gradient; leave it out")
    engine.verify(next(material.batches(sound[:VERIFIED], model.device)))


def _targets(found: Mapping[str, Asked], scale: Gradient | None) -> dict[str, Gradient]:
    targets = {f"{name}/{half}": getattr(asked, half) for name, asked in found.items() for half in "ab"}
    if scale is not None:
        whole = {name: scaled(added([asked.a, asked.b]), 0.5) for name, asked in found.items()}
        targets |= {f"adam/{name}": preconditioned(gradient, scale) for name, gradient in whole.items()}
    return targets


def _sound(model: Any, samples: Sequence[Sample], material: Material) -> tuple[list[Sample], Gradient]:
    """The samples whose gradients are finite, and their Σ w g; one by one only where the sum is not finite."""
    total = _weighted_sum(model, samples, material)
    if np.isfinite(inner(total, total)):
        return list(samples), total
    engine = Engine(model, [])
    finite = [engine.measure(batch, log_likelihood).finite for batch in material.batches(samples, model.device)]
    kept = [sample for sample, sound in zip(samples, torch.cat(finite).tolist(), strict=True) if sound]
    if not kept:
        raise UserError(
            f"influence: no sample has a finite gradient, beginning with {samples[0].id}; train at a lower rate"
        )
    return kept, _weighted_sum(model, kept, material)


def _require_finite(found: Mapping[str, Asked]) -> None:
    for name, asked in found.items():
        if not np.isfinite(inner(asked.a, asked.a) + inner(asked.b, asked.b)):
            raise UserError(
                f"influence: the gradient of benchmark {name} is not finite at this checkpoint, so nothing can be held "
                "against it; trace earlier steps (`--step`), or train at a lower rate"
            )


def _joined(parts: Sequence[Influences], name: str) -> np.ndarray:
    return torch.cat([getattr(part, name) for part in parts]).numpy()


def _weighted_sum(model: Any, samples: Sequence[Sample], material: Material) -> Gradient:
    """Σ w g, by ordinary autograd."""
    weights = iter([sample.weight for sample in samples])

    def weighted(logits: torch.Tensor, batch: TeacherForced) -> torch.Tensor:
        own = torch.tensor([next(weights) for _ in batch.targets], device=logits.device)
        return own * log_likelihood(logits, batch)

    return added([batch_gradient(model, batch, weighted) for batch in material.batches(samples, model.device)])
