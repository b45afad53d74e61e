"""Where benchmarks' gradients are taken along a training, and how well sums between these steps meet what happened.

Between two nodes V is Simpson's mean along the straight way, (V(θ) + 4 V((θ + θ') / 2) + V(θ')) / 6, so that ⟨V, Δθ⟩
misses the measured change to fifth order; the trapezoid of both ends, to third. Where it misses much, a node is put
between, as long as there are some to spend.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from holdfast.influence.engine.gradients import Gradient, batch_gradients, log_likelihood, selection, wide
from holdfast.influence.replay.steps import StepStore
from holdfast.influence.samples import Sample, SampleEncoder
from holdfast.models.encode import TeacherForced


class Gap(NamedTuple):
    """The way between two nodes; both (benchmarks,)."""

    measured: np.ndarray
    predicted: np.ndarray
    """⟨V, Δθ⟩."""


LEAST = 1e-4
"""Nats per token. Where less is missed than this of all of a benchmark's changes, a node would buy nothing."""

Pair = tuple[int, int]
"""Two neighbouring nodes."""
Slopes = Iterator[tuple[str, Tensor]]


class Nodes:
    """Measures at the steps that are asked for, and at more of them. Gradients wait in a directory."""

    def __init__(
        self, model: Any, store: StepStore, questions: Mapping[str, Sequence[Sample]], encoder: SampleEncoder
    ) -> None:
        self.model, self.store, self.questions, self.encoder = model, store, questions, encoder
        self.place = store.place / "gradients"
        self.place.mkdir(exist_ok=True)
        self.loglik: dict[int, np.ndarray] = {}
        """Mean over a benchmark's questions of the log-likelihood per token, by step (benchmarks,)."""
        self.gaps: dict[Pair, Gap] = {}
        """In the order of the steps, once they are asked for."""

    @property
    def steps(self) -> list[int]:
        """In order."""
        return sorted(self.loglik)

    def add(self, step: int) -> None:
        """Measure at a step."""
        self.loglik[step] = self._measure(f"at-{step}", self.store.read(step, "weights"))

    def slopes(self, start: int, end: int) -> Slopes:
        """V between two neighbouring nodes, by parameter (benchmarks, values). One parameter is read at a time."""
        files = (f"at-{start}", f"between-{start}-{end}", f"at-{end}")
        with ExitStack() as opened:
            parts = [opened.enter_context(safe_open(self.place / f"{name}.safetensors", "pt")) for name in files]

            def stacked(name: str) -> Iterator[Tensor]:
                for part in parts:
                    yield torch.stack([part.get_tensor(f"{k}/{name}").flatten() for k in range(len(self.questions))])

            for name in selection(self.model):
                first, middle, last = stacked(name)
                yield name, (first + 4 * middle + last) / 6

    def mapped_slopes(self, start: int, end: int) -> dict[str, Tensor]:
        """The same in a file, which the system reads as it is needed."""
        selected = selection(self.model)
        count = len(self.questions)
        numbers = [count * value.numel() for value in selected.values()]
        dtype = next(iter(selected.values())).dtype
        whole = torch.from_file(str(self.place / "slopes"), True, sum(numbers), dtype=wide(dtype))
        found = dict(zip(selected, (part.view(count, -1) for part in whole.split(numbers)), strict=True))
        for name, slope in self.slopes(start, end):
            found[name].copy_(slope)
        return found

    def refine(self, error: float, most: int, told: Callable[[int], None] = lambda added: None) -> int:
        """Put nodes where a benchmark's misses add up to more than a share of its changes, and to more than `LEAST`;
        returns how many.

        It stops when none misses more, when `most` are there, or when all that is missed lies in single steps. `told`
        hears how many there are.
        """
        self.gaps = {pair: self._gap(*pair) for pair in zip(self.steps, self.steps[1:], strict=False)}
        added = 0
        while added < most and (worst := _worst(self.gaps, error)) is not None:
            start, end = worst
            middle = (start + end) // 2
            self.add(middle)
            added += 1
            told(added)
            del self.gaps[worst]
            (self.place / f"between-{start}-{end}.safetensors").unlink()
            self.gaps |= {pair: self._gap(*pair) for pair in ((start, middle), (middle, end))}
        return added

    def largest_error(self) -> float:
        """The largest share that is missed of a benchmark's changes; 0 where no more than `LEAST` of any is."""
        gaps = list(self.gaps.values())
        return float(np.where(_missed(gaps) > LEAST, shares(gaps), 0.0).max())

    def _gap(self, start: int, end: int) -> Gap:
        before, after = (self.store.read(step, "weights") for step in (start, end))
        self._measure(f"between-{start}-{end}", {name: (value + after[name]) / 2 for name, value in before.items()})
        moved = {name: after[name].double() - value.double() for name, value in before.items()}
        parts = [slope.double() @ moved[name].flatten() for name, slope in self.slopes(start, end)]
        return Gap(self.loglik[end] - self.loglik[start], torch.stack(parts).sum(0).numpy())

    def _measure(self, name: str, weights: Gradient) -> np.ndarray:
        """Every benchmark's ℓ at these weights (benchmarks,); its gradient waits under the name."""
        place(self.model, weights)
        measured = [self._benchmark(samples) for samples in self.questions.values()]
        parts = {f"{k}/{key}": value for k, (_, one) in enumerate(measured) for key, value in one.items()}
        save_file(parts, self.place / f"{name}.safetensors")
        return np.array([loglik for loglik, _ in measured])

    def _benchmark(self, samples: Sequence[Sample]) -> tuple[float, Gradient]:
        """ℓ and its gradient, from the same passes."""
        values: list[Tensor] = []

        def per_token(logits: Tensor, batch: TeacherForced) -> Tensor:
            own = log_likelihood(logits, batch) / batch.mask.sum(1)
            values.append(own.detach().double().cpu())
            return own

        total: Gradient = {}
        for batch in self.encoder.batches(samples, self.model.device):
            [gradient] = batch_gradients(self.model, batch, [per_token])
            total = {name: value + total[name] if total else value for name, value in gradient.items()}
        mean = {name: (value / len(samples)).cpu() for name, value in total.items()}
        return float(torch.cat(values).mean()), mean


def shares(gaps: Sequence[Gap]) -> np.ndarray:
    """Σ |measured − predicted| over Σ |measured|, of all intervals (benchmarks,)."""
    return np.asarray(_missed(gaps) / np.maximum(sum(np.abs(gap.measured) for gap in gaps), 1e-12))


def _missed(gaps: Sequence[Gap]) -> np.ndarray:
    return np.sum([np.abs(gap.measured - gap.predicted) for gap in gaps], axis=0)


def _worst(gaps: Mapping[Pair, Gap], error: float) -> Pair | None:
    """The interval that holds most of what is missed, over the benchmarks that are missed by more than `error`."""
    every = list(gaps.values())
    over = (shares(every) > error) & (_missed(every) > LEAST)
    if not over.any():
        return None
    scale = np.maximum(sum(np.abs(gap.measured) for gap in gaps.values()), 1e-12)
    missed = {
        pair: float((np.abs(gap.measured - gap.predicted) / scale)[over].sum())
        for pair, gap in gaps.items()
        if pair[1] - pair[0] > 1
    }
    return max(missed, key=missed.__getitem__) if missed else None


@torch.no_grad()
def place(model: Any, weights: Gradient) -> None:
    """Give the parameters that learn these values."""
    for name, value in selection(model).items():
        value.copy_(weights[name])
