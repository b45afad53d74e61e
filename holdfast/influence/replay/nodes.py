"""Where a benchmark's gradient is taken along a training, and how well sums between these steps meet what happened.

Between two nodes V is the trapezoid's mean along the straight way, (V(θ) + V(θ')) / 2, so that ⟨V, Δθ⟩ misses the
measured change to third order. Where it misses much, V is taken half-way, too: Simpson's mean,
(V(θ) + 4 V((θ + θ') / 2) + V(θ')) / 6, misses it to fifth. Where that misses much, a node is put between, as long as
there are some to spend. Each benchmark has nodes of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from holdfast.influence.engine.gradients import Gradient, batch_gradients, log_likelihood, selection, wide
from holdfast.influence.replay.steps import StepStore
from holdfast.influence.samples import Sample, SampleEncoder
from holdfast.models.encode import TeacherForced


class Gap(NamedTuple):
    """The way between two nodes, in nats per token."""

    measured: float
    predicted: float
    """⟨V, Δθ⟩."""

    @property
    def missed(self) -> float:
        return abs(self.measured - self.predicted)


LEAST = 1e-4
"""Nats per token. Where less is missed than this of all of a benchmark's changes, a node would buy nothing."""

GRADIENTS = "gradients"
"""Directory beside the steps in which they wait."""
Pair = tuple[int, int]
"""Two neighbouring nodes."""
Measure = Callable[[], tuple[float, Gradient]]
"""The mean over a benchmark's questions of the log-likelihood per token where the model is, and its gradient."""


class BenchmarkNodes:
    """Of one benchmark. Gradients wait in a directory."""

    def __init__(self, model: Any, store: StepStore, measure: Measure, folder: Path) -> None:
        self.model, self.store, self.measure, self.folder = model, store, measure, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.loglik: dict[int, float] = {}
        self.gaps: dict[Pair, Gap] = {}
        self.halfway: set[Pair] = set()
        """Where V was taken half-way, too."""

    def begin(self, steps: Sequence[int]) -> None:
        """Nodes at these steps, in order."""
        for step in steps:
            self._add(step)
        self.gaps = {pair: self._gap(*pair) for pair in pairwise(steps)}

    def refine(self, error: float, most: int) -> int:
        """Look half-way, and then put nodes, where misses add up to more than a share of the changes, and to more than
        `LEAST`; returns how many nodes.

        It stops when no more is missed, when `most` are there, or when all that is missed lies in single steps.
        """
        added = 0
        while (pair := worst(self.gaps, self._closed(added == most), error)) is not None:
            start, end = pair
            if pair not in self.halfway:
                before, after = (self.store.read(step, "weights") for step in pair)
                mean = {name: (value + after[name]) / 2 for name, value in before.items()}
                self._measured(f"between-{start}-{end}", mean)
                self.halfway.add(pair)
                self.gaps[pair] = self._gap(*pair)
            else:
                middle = (start + end) // 2
                self._add(middle)
                del self.gaps[pair]
                self.halfway.remove(pair)
                self._path(f"between-{start}-{end}").unlink()
                self.gaps |= {pair: self._gap(*pair) for pair in ((start, middle), (middle, end))}
                added += 1
        return added

    def _closed(self, spent: bool) -> set[Pair]:
        """Where nothing is left to do: Simpson's mean of a single step, or of any way when all nodes are spent."""
        return {(start, end) for start, end in self.halfway if spent or end - start == 1}

    def around(self, start: int, end: int) -> Pair:
        """The neighbouring nodes between which a part of the way lies."""
        return next(pair for pair in self.gaps if pair[0] <= start and end <= pair[1])

    def slope(self, start: int, end: int) -> Iterator[tuple[str, Tensor]]:
        """V between two neighbouring nodes, by parameter (values,). One parameter is read at a time."""
        weights = {f"at-{start}": 1 / 2, f"at-{end}": 1 / 2}
        if (start, end) in self.halfway:
            weights = {f"at-{start}": 1 / 6, f"between-{start}-{end}": 4 / 6, f"at-{end}": 1 / 6}
        with ExitStack() as opened:
            files = [(opened.enter_context(safe_open(self._path(name), "pt")), of) for name, of in weights.items()]
            for name in selection(self.model):
                yield name, sum(of * file.get_tensor(name) for file, of in files).flatten()

    def _add(self, step: int) -> None:
        self.loglik[step] = self._measured(f"at-{step}", self.store.read(step, "weights"))

    def _gap(self, start: int, end: int) -> Gap:
        before, after = (self.store.read(step, "weights") for step in (start, end))
        moved = {name: (after[name].double() - value.double()).flatten() for name, value in before.items()}
        predicted = sum(float(slope.double() @ moved[name]) for name, slope in self.slope(start, end))
        return Gap(self.loglik[end] - self.loglik[start], predicted)

    def _measured(self, name: str, weights: Gradient) -> float:
        """ℓ at these weights; its gradient waits under the name, perhaps since before an interruption."""
        path = self._path(name)
        if path.is_file():
            with safe_open(path, "pt") as file:
                return float(file.metadata()["loglik"])
        place(self.model, weights)
        loglik, gradient = self.measure()
        partial = path.with_suffix(".partial")
        save_file(gradient, partial, {"loglik": repr(loglik)})
        partial.replace(path)
        return loglik

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"


class Nodes:
    """Of all benchmarks, by name."""

    def __init__(
        self, model: Any, store: StepStore, questions: Mapping[str, Sequence[Sample]], encoder: SampleEncoder
    ) -> None:
        self.model = model
        self.folder = store.place / GRADIENTS
        self.benchmarks = {
            name: BenchmarkNodes(model, store, measuring(model, samples, encoder), self.folder / str(number))
            for number, (name, samples) in enumerate(questions.items())
        }
        self.written: dict[int, Pair] = {}
        """Between which nodes the slope lies that a benchmark's row in the file has."""

    @property
    def steps(self) -> list[int]:
        """At which any benchmark has a node, in order."""
        return sorted({step for one in self.benchmarks.values() for step in one.loglik})

    def begin(self, steps: Sequence[int]) -> None:
        """Nodes at these steps, in order."""
        for one in self.benchmarks.values():
            one.begin(steps)

    def refine(self, error: float, most: int, told: Callable[[float], None] = lambda share: None) -> int:
        """More of them, `most` a benchmark; returns how many. `told` hears which share of benchmarks is done."""
        added = 0
        for number, one in enumerate(self.benchmarks.values(), start=1):
            added += one.refine(error, most)
            told(number / len(self.benchmarks))
        return added

    def slopes(self, start: int, end: int) -> dict[str, Tensor]:
        """V of all between two neighbouring steps of `steps`, by parameter (benchmarks, values), until the next call.

        In a file, which the system reads as it is needed.
        """
        selected, count = selection(self.model), len(self.benchmarks)
        numbers = [count * value.numel() for value in selected.values()]
        dtype = wide(next(iter(selected.values())).dtype)
        whole = torch.from_file(str(self.folder / "slopes"), True, sum(numbers), dtype=dtype)
        found = dict(zip(selected, (part.view(count, -1) for part in whole.split(numbers)), strict=True))
        for row, one in enumerate(self.benchmarks.values()):
            pair = one.around(start, end)
            if self.written.get(row) != pair:
                for name, slope in one.slope(*pair):
                    found[name][row].copy_(slope)
                self.written[row] = pair
        return found

    def largest_error(self) -> float:
        """The largest share that is missed of a benchmark's changes; 0 where no more than `LEAST` of any is."""
        every = [list(one.gaps.values()) for one in self.benchmarks.values()]
        return max(share(gaps) if missed(gaps) > LEAST else 0.0 for gaps in every)


def measuring(model: Any, samples: Sequence[Sample], encoder: SampleEncoder) -> Measure:
    """ℓ of a benchmark and its gradient, from the same passes."""

    def measure() -> tuple[float, Gradient]:
        values: list[Tensor] = []

        def per_token(logits: Tensor, batch: TeacherForced) -> Tensor:
            own = log_likelihood(logits, batch) / batch.mask.sum(1)
            values.append(own.detach().double().cpu())
            return own

        total: Gradient = {}
        for batch in encoder.batches(samples, model.device):
            [gradient] = batch_gradients(model, batch, [per_token])
            total = {name: value + total[name] if total else value for name, value in gradient.items()}
        mean = {name: (value / len(samples)).cpu() for name, value in total.items()}
        return float(torch.cat(values).mean()), mean

    return measure


def missed(gaps: Iterable[Gap]) -> float:
    """Σ |measured − predicted|."""
    return sum(gap.missed for gap in gaps)


def share(gaps: Collection[Gap]) -> float:
    """Σ |measured − predicted| over Σ |measured|."""
    return missed(gaps) / max(sum(abs(gap.measured) for gap in gaps), 1e-12)


def worst(gaps: Mapping[Pair, Gap], closed: Collection[Pair], error: float) -> Pair | None:
    """The way, not a `closed` one, that misses most; None if the benchmark misses no more than `error` in all."""
    if share(gaps.values()) <= error or missed(gaps.values()) <= LEAST:
        return None
    found = {pair: gap.missed for pair, gap in gaps.items() if pair not in closed}
    return max(found, key=found.__getitem__) if found else None


@torch.no_grad()
def place(model: Any, weights: Gradient) -> None:
    """Give the parameters that learn these values."""
    for name, value in selection(model).items():
        value.copy_(weights[name])
