"""Backwards through the steps of a training: what every sample of every step did to every benchmark.

A step's gradient moves the weights in its own step and, by momentum, in all later ones, so its effect on benchmark k is
its dot with W_{k,s} = Σ_{t≥s} gain · rate_t · β^{t−s} V_{k,t} / D_t. Going backwards, W is a decayed sum that lies in
the engine as its targets. V is constant between two nodes. What an interval's samples do, they do there and, by
momentum, after it; `carried` is what momentum brought into the interval less what it took out of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from holdfast.influence.engine.engine import Engine
from holdfast.influence.engine.gradients import (
    Gradient,
    batch_gradient,
    selection,
    shared_completion_logits,
    wide,
)
from holdfast.influence.replay.steps import ParameterStep, StepFacts, StepStore
from holdfast.models.encode import TeacherForced


class Learned(NamedTuple):
    """Samples of a step with the loss's slope at each of their tokens: w = −∂loss / ∂ log π(token)."""

    batch: TeacherForced
    weights: Tensor
    """(samples, tokens) of what teaches, the loss without its KL penalty."""
    penalty: Tensor | None = None
    """(samples, tokens) of the KL penalty alone."""
    temperature: float = 1.0
    places: Sequence[int] | None = None
    """Theirs among the samples of the step; by default they follow those of the parts before."""

    @property
    def teaches(self) -> bool:
        """Whether the loss has a slope at any of its tokens."""
        return bool(self.weights.any())

    def objective(self, weights: Tensor) -> Callable[[Tensor, TeacherForced], Tensor]:
        """Σ_t w_t log π(y_t) of each sample."""
        return lambda logits, batch: (
            (token_log_likelihood(logits, batch, self.temperature) * weights.to(logits.device))
            .masked_fill(~batch.mask, 0.0)
            .sum(1)
        )


def token_log_likelihood(logits: Tensor, batch: TeacherForced, temperature: float = 1.0) -> Tensor:
    """log π(y_t) (samples, tokens), at least in float32."""
    logits = logits.to(wide(logits.dtype)) / temperature
    return logits.gather(-1, batch.targets[..., None]).squeeze(-1) - logits.logsumexp(-1)


class Recording(NamedTuple):
    """A training that was taken down."""

    store: StepStore
    facts: Sequence[StepFacts]
    """Of steps 1, 2, …"""
    learned: Callable[[int], Iterable[Learned]]
    """The samples of a step, in batches of any size."""


class SampleEffects(NamedTuple):
    """Of a step's samples, after clipping, in nats of each benchmark."""

    step: int
    effects: np.ndarray
    """(samples, benchmarks)."""
    clip: float


class Interval(NamedTuple):
    """The accounts of an interval; each (benchmarks,), in nats."""

    start: int
    end: int
    gradients: np.ndarray
    """Of its steps' samples, as if nothing had been clipped."""
    clipping: np.ndarray
    """What clipping took away from that."""
    penalty: np.ndarray
    """The KL penalty's, after clipping."""
    decay: np.ndarray
    carried: np.ndarray
    """What the momentum of earlier steps does from here on, less what that of its own steps, too, does after it."""
    predicted: np.ndarray
    """⟨V, Δθ⟩ of the real steps."""
    gross: np.ndarray
    """What all its samples did, signs apart."""

    @property
    def rounding(self) -> np.ndarray:
        """What is left: nothing, but for the precision of weights and passes."""
        return self.predicted - (self.gradients + self.clipping + self.penalty + self.decay + self.carried)

    @property
    def moved(self) -> np.ndarray:
        """What samples, penalty, decay and momentum did, signs apart: the scale of rounding."""
        return self.gross + np.abs(self.penalty) + np.abs(self.decay) + np.abs(self.carried)


Tokens = Callable[[Any, "Learned", Sequence[Gradient]], list[np.ndarray]]
"""`tokens.token_effects`."""


class Attribution:
    """Goes backwards over intervals; afterwards `samples` has the effects of every step, the last step first.

    With `mixtures` (directions, benchmarks), `tokens` has the effects of every token on these sums of benchmarks.
    """

    def __init__(self, model: Any, recording: Recording, benchmarks: int) -> None:
        self.model, self.recording, self.count = model, recording, benchmarks
        self.engine = Engine(model, [])
        for name, value in selection(model).items():
            self.engine.targets[name] = value.new_zeros(benchmarks, value.numel(), dtype=wide(value.dtype))
        self.passed_on = np.zeros(benchmarks)
        """What the momentum at the end of the interval does after it."""
        self.samples: list[SampleEffects] = []
        self.mixtures = np.zeros((0, benchmarks))
        self.token_effects: Tokens | None = None
        self.tokens: dict[int, list[np.ndarray]] = {}
        """By step, a (tokens, directions) array of each sample."""

    def interval(self, start: int, end: int, slopes: Mapping[str, Tensor]) -> Interval:
        """Attribute steps start + 1 … end with this constant V, by parameter (benchmarks, values); the interval after
        it came before. One parameter of V at a time goes where the model is."""
        gradients, clipping, penalty, decay, gross = (np.zeros(self.count) for _ in range(5))
        for step in range(end, start, -1):
            facts = self.recording.facts[step - 1]
            self._enter(step, facts, slopes)
            decay -= self._shrunk(facts, slopes)
            effects, punished = self._measured(step, facts)
            self.samples.append(SampleEffects(step, effects * facts.clip, facts.clip))
            gradients += effects.sum(0)
            clipping += (facts.clip - 1) * effects.sum(0)
            gross += facts.clip * np.abs(effects).sum(0)
            penalty += facts.clip * punished
            self._step_back(facts)
        before, after = (self.recording.store.read(step, "weights") for step in (start, end))
        moved = {name: after[name].double() - before[name].double() for name in slopes}
        predicted = _dots(slopes, moved, self.count)
        return Interval(start, end, gradients, clipping, penalty, decay, self._carried(start), predicted, gross)

    def again(self, interval: Interval, samples: Sequence[SampleEffects], slopes: Mapping[str, Tensor]) -> None:
        """Bring W over an interval whose samples were measured before, with what they were found to do."""
        for step in range(interval.end, interval.start, -1):
            facts = self.recording.facts[step - 1]
            self._enter(step, facts, slopes)
            self._step_back(facts)
        self.samples += samples
        self._carried(interval.start)

    def _enter(self, step: int, facts: StepFacts, slopes: Mapping[str, Tensor]) -> None:
        """Take the step's own effect into W, and put the model where the step's gradients were taken."""
        second = self.recording.store.read(step, "second", self.model.device)
        before = self.recording.store.read(step - 1, "weights")
        with torch.no_grad():
            for name, value in selection(self.model).items():
                value.copy_(before[name])
                one: ParameterStep | None = facts.parameters.get(name)
                if one is not None:
                    target, v = self.engine.targets[name], second.get(name)
                    scale = one.scale(None if v is None else v.to(target.dtype).flatten())
                    target.addcdiv_(slopes[name].to(target), torch.as_tensor(scale).to(target), value=one.rate)

    def _step_back(self, facts: StepFacts) -> None:
        """W of the step before, by what momentum keeps of a gradient."""
        for name, one in facts.parameters.items():
            self.engine.targets[name].mul_(one.momentum)

    def _carried(self, start: int) -> np.ndarray:
        came_in = -_dots(self.engine.targets, self.recording.store.read(start, "first"), self.count)
        carried, self.passed_on = came_in - self.passed_on, came_in
        return carried

    def _shrunk(self, facts: StepFacts, slopes: Mapping[str, Tensor]) -> np.ndarray:
        """⟨V, shrink θ⟩ where the model is."""
        if not any(one.shrink for one in facts.parameters.values()):
            return np.zeros(self.count)
        weights = selection(self.model)
        shrunk = {name: one.shrink * weights[name].detach() for name, one in facts.parameters.items()}
        return _dots(slopes, shrunk, self.count)

    def _measured(self, step: int, facts: StepFacts) -> tuple[np.ndarray, np.ndarray]:
        """Of a step's samples (samples, benchmarks), unclipped; and of its KL penalty (benchmarks,)."""
        [gain] = {one.gain for one in facts.parameters.values()}
        found: dict[int, np.ndarray] = {}
        tokens: dict[int, np.ndarray] = {}
        punished = np.zeros(self.count)
        directions = self._directions() if self.token_effects is not None else []
        for part in self.recording.learned(step):
            places = part.places if part.places is not None else range(len(found), len(found) + len(part.weights))
            found.update(zip(places, gain * self._dots_of(part), strict=True))
            if self.token_effects is not None:
                effects = self._tokens_of(part, directions)
                tokens.update(zip(places, (gain * facts.clip * one for one in effects), strict=True))
            if part.penalty is not None:
                # Of no single sample, so one ordinary pass does, as a trainer takes it.
                objective = part.objective(part.penalty)
                gradient = batch_gradient(self.model, part.batch, objective, shared_completion_logits)
                punished += gain * _dots(self.engine.targets, gradient, self.count)
        if self.token_effects is not None:
            self.tokens[step] = [tokens[place] for place in sorted(tokens)]
        return np.stack([found[place] for place in sorted(found)]), punished

    def _directions(self) -> list[Gradient]:
        """W of each mixture."""
        found: list[Gradient] = [{} for _ in self.mixtures]
        for name, value in selection(self.model).items():
            target = self.engine.targets[name]
            mixed = torch.as_tensor(self.mixtures).to(target) @ target
            for direction, row in zip(found, mixed, strict=True):
                direction[name] = row.view_as(value).to(value.dtype)
        return found

    def _dots_of(self, part: Learned) -> np.ndarray:
        """(samples, benchmarks); exactly 0 where no token has a weight."""
        if not part.teaches:
            return np.zeros((len(part.weights), self.count))
        dots = self.engine.measure(part.batch, part.objective(part.weights)).dot.numpy()
        return np.where(part.weights.any(1).numpy()[:, None], dots, 0.0)

    def _tokens_of(self, part: Learned, directions: Sequence[Gradient]) -> list[np.ndarray]:
        """Of every sample, (tokens, directions)."""
        assert self.token_effects is not None
        if not part.teaches:
            return [np.zeros((int(mask.sum()), len(directions))) for mask in part.batch.mask]
        return self.token_effects(self.model, part, directions)


def _dots(rows: Mapping[str, Tensor], direction: Mapping[str, Tensor], count: int) -> np.ndarray:
    """⟨row, direction⟩, summed in float64 (count,)."""
    found = torch.zeros(count, dtype=torch.float64)
    for name, value in direction.items():
        found += (rows[name].to(value.device).double() @ value.double().flatten()).cpu()
    return found.numpy()


def unexplained(intervals: Sequence[Interval]) -> list[float]:
    """Of each interval the largest share that rounding is of what moved there, or in as many steps of the training in
    the mean, if that is more: where no sample teaches, hardly anything moves, and what does is rounded all the same."""
    steps = sum(one.end - one.start for one in intervals)
    mean = sum(one.moved for one in intervals) / steps
    scales = (np.maximum(one.moved, (one.end - one.start) * mean) for one in intervals)
    pairs = zip(intervals, scales, strict=True)
    return [float(np.max(np.abs(one.rounding) / np.maximum(scale, 1e-12))) for one, scale in pairs]


def backwards(intervals: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Pairs of neighbouring nodes, the last first."""
    yield from zip(intervals[-2::-1], intervals[:0:-1], strict=True)
