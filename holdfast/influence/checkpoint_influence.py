"""The influence of samples on every benchmark at one checkpoint: each sample's gradient against each benchmark's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from holdfast.errors import UserError
from holdfast.influence import measures
from holdfast.influence.benchmark_gradients import BenchmarkGradients, kernel_dots
from holdfast.influence.checkpoints import inner, preconditioned
from holdfast.influence.engine.engine import Engine, Influences
from holdfast.influence.engine.gradients import Gradient, added, batch_gradient, log_likelihood, placed
from holdfast.influence.engine.likelihood import Likelihood
from holdfast.influence.samples import Sample, SampleEncoder
from holdfast.models.encode import TeacherForced

VERIFIED = 4
"""Samples that are held against autograd: enough to be unlike each other in length."""


class Targets(NamedTuple):
    """What the samples of a checkpoint are held against."""

    benchmarks: Mapping[str, BenchmarkGradients]
    preconditioner: Gradient | None
    """Adam's √v̂ + ε; with it, every benchmark is a preconditioned target, too."""
    held: torch.device | None = None
    """Where gradients lie; by default where they were computed."""

    def gradients(self) -> dict[str, Gradient]:
        """By name: BENCHMARK/a and /b (disjoint halves of its questions), and adam/BENCHMARK."""
        halves = {f"{name}/{half}": getattr(one, half) for name, one in self.benchmarks.items() for half in "ab"}
        scale = self.preconditioner
        if scale is None:
            return halves
        return halves | {f"adam/{name}": preconditioned(one.mean, scale) for name, one in self.benchmarks.items()}


class CheckpointInfluence(NamedTuple):
    """What was measured. Columns of `dots` are `targets`: those of `Targets.gradients`, and `sum`, the samples' own
    Σ w g."""

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
    kernels2: dict[str, np.ndarray]
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
                "loglik": self.loglik[index],
                "weight": sample.weight,
                "norm2": self.norms2[index, column],
                **{f"dot/{name}": self.dots[index, k, column] for k, name in enumerate(self.targets)},
            }
            for index, sample in enumerate(self.samples)
            for column, block in enumerate(self.blocks)
        ]

    def sample_columns(self) -> dict[str, dict[str, float]]:
        """By sample's id, what magnitudes are means of and no block of layers has a part of, by column."""
        certainty = self.source.certainty
        return {
            sample.id: {"certainty": certainty[index], "error": self.errors[index]}
            | {
                f"kernel2/{name}/{probe}": square[index]
                for name, squares in self.kernels2.items()
                for probe, square in enumerate(squares)
            }
            for index, sample in enumerate(self.samples)
        }

    def measures(self, target: str) -> dict[str, float]:
        """Measures named BENCHMARK/MEASURE, and those of the source alone by their own names.

        `perplexity` is that of the source's text under the checkpoint.
        """
        alone = measures.of_source(self.source)
        alone["perplexity"] = measures.perplexity(self.loglik, self.source.tokens)
        adam = {name: self._adam(name) for name in self.benchmarks if f"adam/{name}" in self.targets}
        on = {name: measures.on_benchmark(self.source, benchmark) for name, benchmark in self.benchmarks.items()}
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


class Shared(NamedTuple):
    """What is the same in whichever parameters samples are measured; of the samples (samples,) unless said."""

    loglik: np.ndarray
    certainty: np.ndarray
    errors: np.ndarray
    spreads: dict[str, np.ndarray]
    """By benchmark ‖A‖² of its questions (questions,)."""
    spread_norms: dict[str, np.ndarray]
    mean_tokens: dict[str, float]


class Part(NamedTuple):
    """What was measured in some of the parameters: all of it adds up over parts, or has a column of its own."""

    shared: Shared
    blocks: list[str]
    targets: list[str]
    norms2: np.ndarray
    """(samples, blocks)."""
    dots: np.ndarray
    """(samples, targets, blocks)."""
    sum_norm2: float
    benchmarks: dict[str, tuple[float, float]]
    """By benchmark ‖V‖² and ⟨V_a, V_b⟩."""
    kernels: dict[str, np.ndarray]
    """By benchmark, dots with random-logit probes (probes, samples)."""


class NotFiniteError(Exception):
    """Some samples have no finite gradient; carries the others."""

    def __init__(self, finite: list[Sample]) -> None:
        super().__init__(f"{len(finite)} samples are finite")
        self.finite = finite


def measure_checkpoint(
    model: Any, samples: Sequence[Sample], encoder: SampleEncoder, targets: Targets, seed: int
) -> CheckpointInfluence:
    """Measure samples against all benchmarks in one pass, and in a second one against the probes, if any.

    Raises:
        UserError: no sample's gradient is finite.
    """
    return measured_in_parts(samples, lambda given: [measure_part(model, given, encoder, targets, seed)])


def measured_in_parts(
    samples: Sequence[Sample], measure: Callable[[Sequence[Sample]], Sequence[Part]]
) -> CheckpointInfluence:
    """Measure in all parts; once more without samples that are not finite in one of them.

    Raises:
        UserError: no sample's gradient is finite.
    """
    kept = list(samples)
    while True:
        try:
            return _joined_parts(samples, kept, measure(kept))
        except NotFiniteError as error:
            kept = error.finite


def measure_part(model: Any, samples: Sequence[Sample], encoder: SampleEncoder, targets: Targets, seed: int) -> Part:
    """Measure in the parameters that require a gradient now.

    Raises:
        NotFiniteError: a sample's gradient is not finite.
        UserError: no sample's is.
    """
    benchmarks = targets.benchmarks
    total = placed(_finite_sum(model, samples, encoder), targets.held)
    gradients = targets.gradients() | {"sum": total}
    batches = list(encoder.batches(samples, model.device))
    engine = Engine(model, list(gradients.values()))
    likelihood = Likelihood()
    parts = [engine.measure(batch, likelihood) for batch in batches]
    norms2, dots, loglik = (_joined(parts, name) for name in ("norms2", "dots", "loglik"))
    shared = Shared(
        loglik=loglik,
        certainty=likelihood.certainty.residual,
        errors=likelihood.certainty.error,
        spreads={name: one.certainty.spread for name, one in benchmarks.items()},
        spread_norms={name: one.certainty.spread_norm for name, one in benchmarks.items()},
        mean_tokens={name: one.mean_tokens for name, one in benchmarks.items()},
    )
    return Part(
        shared=shared,
        blocks=engine.blocks,
        targets=list(gradients),
        norms2=norms2,
        dots=dots,
        sum_norm2=inner(total, total),
        benchmarks={name: (one.norm2, inner(one.a, one.b)) for name, one in benchmarks.items()},
        kernels=kernel_dots(model, batches, {name: one.probes for name, one in benchmarks.items() if one.probes}, seed),
    )


def _joined_parts(samples: Sequence[Sample], finite: Sequence[Sample], parts: Sequence[Part]) -> CheckpointInfluence:
    """One measurement of its parts; of a kernel, dots are summed over them before they are squared."""
    first = parts[0]
    shared, known = first.shared, {sample.id for sample in finite}
    norms2 = np.concatenate([part.norms2 for part in parts], axis=1)
    dots = np.concatenate([part.dots for part in parts], axis=2)
    source = measures.Source(
        tokens=np.array([len(sample.completion) for sample in finite], dtype=float),
        weights=np.array([sample.weight for sample in finite]),
        norms2=norms2.sum(-1),
        sum_norm2=sum(part.sum_norm2 for part in parts),
        certainty=shared.certainty,
    )
    kernels2 = {name: np.sum([part.kernels[name] for part in parts], axis=0) ** 2 for name in first.kernels}
    return CheckpointInfluence(
        samples=list(finite),
        broken=tuple(sample.id for sample in samples if sample.id not in known),
        blocks=[block for part in parts for block in part.blocks],
        targets=first.targets,
        norms2=norms2,
        dots=dots,
        loglik=shared.loglik,
        source=source,
        errors=shared.errors,
        benchmarks=_benchmarks(parts, first.targets, dots),
        spread_norms=shared.spread_norms,
        kernels2=kernels2,
        kernels={
            name: measures.kernel(squares, source.tokens, shared.mean_tokens[name])
            for name, squares in kernels2.items()
        },
    )


def _benchmarks(parts: Sequence[Part], targets: list[str], dots: np.ndarray) -> dict[str, measures.Benchmark]:
    """`dots` are (samples, targets, blocks)."""
    return {
        name: measures.Benchmark(
            dots=(dots[:, targets.index(f"{name}/a")] + dots[:, targets.index(f"{name}/b")]).sum(-1) / 2,
            norm2=sum(part.benchmarks[name][0] for part in parts),
            halves=sum(part.benchmarks[name][1] for part in parts),
            spread=float(spread.mean()),
        )
        for name, spread in parts[0].shared.spreads.items()
    }


def verify(model: Any, samples: Sequence[Sample], encoder: SampleEncoder) -> None:
    """Hold the engine against autograd on a few samples of the first batch, those without a finite gradient left out.

    Raises:
        UserError: they disagree, or no sample of the batch has a finite gradient.
    """
    engine = Engine(model, [])
    first = next(encoder.parts(samples))
    [batch] = encoder.batches(first, model.device)
    sound = [sample for sample, finite in zip(first, engine.measure(batch).finite.tolist(), strict=True) if finite]
    if not sound:
        raise UserError(f"influence: sample {first[0].id}, and all of its batch, has no finite gradient; leave it out")
    engine.verify(next(encoder.batches(sound[:VERIFIED], model.device)))


def _finite_sum(model: Any, samples: Sequence[Sample], encoder: SampleEncoder) -> Gradient:
    """Σ w g of the samples; one by one they are looked at only where it is not finite."""
    total = _weighted_sum(model, samples, encoder)
    if np.isfinite(inner(total, total)):
        return total
    engine = Engine(model, [])
    flags = [engine.measure(batch, log_likelihood).finite for batch in encoder.batches(samples, model.device)]
    kept = [sample for sample, finite in zip(samples, torch.cat(flags).tolist(), strict=True) if finite]
    if not kept:
        raise UserError(
            f"influence: no sample has a finite gradient, beginning with {samples[0].id}; train at a lower rate"
        )
    if len(kept) < len(samples):
        raise NotFiniteError(kept)
    return total


def _joined(parts: Sequence[Influences], name: str) -> np.ndarray:
    return torch.cat([getattr(part, name) for part in parts]).numpy()


def _weighted_sum(model: Any, samples: Sequence[Sample], encoder: SampleEncoder) -> Gradient:
    """Σ w g, by ordinary autograd."""
    weights = iter([sample.weight for sample in samples])

    def weighted(logits: torch.Tensor, batch: TeacherForced) -> torch.Tensor:
        own = torch.tensor([next(weights) for _ in batch.targets], device=logits.device)
        return own * log_likelihood(logits, batch)

    return added([batch_gradient(model, batch, weighted) for batch in encoder.batches(samples, model.device)])
