"""What a stage forgot, traced to its samples: their influence on every benchmark at every kept checkpoint.

Writes influence.parquet (a row for every sample, checkpoint and block of layers), sources.parquet (what each sample
says, and what the source's magnitudes are means of), and path.parquet (what the steps between two checkpoints were
predicted to do to each question, and did).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from holdfast import group
from holdfast.config.jobs import Trace
from holdfast.config.measurement import LEAST_PROMPTS
from holdfast.data.shards import read_questions
from holdfast.influence import checkpoints
from holdfast.influence.benchmark_gradients import BenchmarkQuestions, benchmark_gradients
from holdfast.influence.checkpoint_influence import (
    CheckpointInfluence,
    Part,
    Targets,
    measure_part,
    measured_in_parts,
    verify,
)
from holdfast.influence.checkpoints import displacement
from holdfast.influence.engine.gradients import Gradient
from holdfast.influence.engine.likelihood import likelihoods
from holdfast.influence.parts import measuring_in, parts_of
from holdfast.influence.record import TraceRecord, reference_lbk
from holdfast.influence.samples import (
    Rollouts,
    Sample,
    SampleEncoder,
    benchmark_questions,
    sample_encoder,
    supervised_completions,
)
from holdfast.influence.trajectory import Trajectory
from holdfast.journal import Journal
from holdfast.models.encode import Encoded
from holdfast.models.image_feature_cache import ImageFeatures, cached_image_features

TOKEN_MEAN = "dapo"
"""TRL's default loss, whose steps `dot` has the scale of."""


def trace(job: Trace, out: Path, journal: Journal, rollouts: Rollouts | None) -> dict[str, Any]:
    """Measure influence where a stage began and at every checkpoint that it kept; returns notes.

    A supervised stage's samples stay the same; with `rollouts`, they are what the model says at each checkpoint.

    Raises:
        UserError: a checkpoint is not what was recorded, a layer is not supported, a sample supervises nothing.
    """
    settings = job.influence
    encoder = sample_encoder(job.train, settings)
    completions = benchmark_questions(job.data.path, settings.questions)
    held = checkpoints.CPU if settings.memory_gb is not None else None
    questions = BenchmarkQuestions(
        {name: encoder.samples(given) for name, given in completions.items()}, encoder, settings.probes, held
    )
    trajectory = Trajectory(questions.samples, encoder)
    record = TraceRecord(job, journal, list(completions))
    steps = [0, *(kept.step for kept in job.kept)]
    visits = Visits(job, questions, trajectory, rollouts)
    # Each process takes a checkpoint; they are recorded in order, as if one had taken them all.
    for first in range(0, len(steps), group.size()):
        own = first + group.number()
        found = [visits.measured(own)] if own < len(steps) else []
        for visit in group.of_all(found):
            step, last = steps[visit.place], visit.place == len(job.kept)
            trajectory.add(step, visit.likelihood, visit.slopes, last)
            lbk = reference_lbk(visit.influence, trajectory, step)
            record.add(step, visit.influence, visit.samples, lbk)
            journal.progress(visit.place + 1, len(steps))
    if rollouts is not None:
        for place, loglik in visits.under_start():
            record.add_start(steps[place], loglik)
    record.write(out, trajectory)
    told = {"measured in parts,": visits.parts} if visits.parts > 1 else {}
    return {"source": record.source, **record.notes(), **told, **caveats(job)}


class Visit(NamedTuple):
    """What was measured at a checkpoint."""

    place: int
    """Of the checkpoint among those of the trace, the beginning first."""
    samples: Sequence[Sample]
    """Without what the model reads of them, which only the process that measured them needs."""
    influence: CheckpointInfluence
    likelihood: np.ndarray
    slopes: np.ndarray
    """As `Trajectory.measured` gives them."""


class Visits:
    """Goes from checkpoint to checkpoint, in order, and loads each as it is needed, with its neighbours' weights."""

    def __init__(
        self, job: Trace, questions: BenchmarkQuestions, trajectory: Trajectory, rollouts: Rollouts | None
    ) -> None:
        self.job, self.questions, self.trajectory, self.rollouts = job, questions, trajectory, rollouts
        self.images: ImageFeatures = {}
        self.parts = 0
        self._taught: list[Sample] = []
        self._measured: dict[int, Sequence[Sample]] = {}
        """Those with a finite gradient, by place."""
        self._loaded: dict[int, checkpoints.Loaded] = {}
        self._weights: dict[int, Gradient] = {}

    def measured(self, place: int) -> Visit:
        """The influence of the samples at a checkpoint, and the questions' slopes along the steps from and to it."""
        here = self._at(place)
        settings, encoder = self.job.influence, self.questions.encoder
        parts = parts_of(here.model, settings, len(self.questions.samples))
        self.parts = len(parts)
        with cached_image_features(here.model, self.images):
            samples = self._samples(here.model, place)
            if place == 0:
                for names in parts:
                    with measuring_in(here.model, names):
                        verify(here.model, samples, encoder)
            point = Checkpoint(self.job, place, here.model, self.questions, self._ways(place))
            influence, *measured = point.measured(samples, parts, self.trajectory)
        self._measured[place] = influence.samples
        influence = influence._replace(samples=_unread(influence.samples))
        return Visit(place, _unread(samples), influence, *measured)

    def under_start(self) -> list[tuple[int, list[float]]]:
        """By place, the log-likelihood of its samples under the model that the stage began with."""
        self._loaded.clear()
        start, encoder = self._at(0).model, self.questions.encoder
        with cached_image_features(start, self.images):
            found = [
                (place, likelihoods(start, encoder.batches(samples, start.device)))
                for place, samples in self._measured.items()
            ]
        return sorted(group.of_all(found))

    def _samples(self, model: Any, place: int) -> list[Sample]:
        if self.rollouts is not None:
            return rollout_samples(self.job, model, self.rollouts, self.questions.encoder, self._step(place))
        if not self._taught:
            completions = supervised_completions(self.job.train, self.job.influence.samples)
            self._taught = self.questions.encoder.samples(completions)
        return self._taught

    def _ways(self, place: int) -> list[Gradient]:
        """To the next checkpoint and from the last, where there are such."""
        weights = {near: self._weights_at(near) for near in (place - 1, place, place + 1) if self._is_there(near)}
        self._weights = weights
        ends = [(place, place + 1), (place - 1, place)]
        return [displacement(weights[end], weights[start]) for start, end in ends if {start, end} <= weights.keys()]

    def _at(self, place: int) -> checkpoints.Loaded:
        """The model where passes compute; one at a time."""
        loaded = self._loaded.pop(place, None) or self._load(place)
        self._loaded.clear()
        self._weights[place] = loaded.weights
        return checkpoints.computing(loaded, self.job.train, self.job.influence)

    def _weights_at(self, place: int) -> Gradient:
        if place not in self._weights:
            loaded = self._load(place)
            self._weights[place] = loaded.weights
            if group.size() == 1:  # which comes there next
                self._loaded[place] = loaded
        return self._weights[place]

    def _load(self, place: int) -> checkpoints.Loaded:
        kept = self.job.kept[place - 1] if place else None
        return checkpoints.load(self.job.train, kept, self.job.influence)

    def _is_there(self, place: int) -> bool:
        return 0 <= place <= len(self.job.kept)

    def _step(self, place: int) -> int:
        return self.job.kept[place - 1].step if place else 0


def _unread(samples: Sequence[Sample]) -> list[Sample]:
    return [sample._replace(encoded=Encoded()) for sample in samples]


class Checkpoint(NamedTuple):
    """One checkpoint of a trace, and the way to the next one and from the last."""

    job: Trace
    place: int
    model: Any
    questions: BenchmarkQuestions
    displacements: list[Gradient]

    def measured(
        self, samples: Sequence[Sample], parts: list[list[str]], trajectory: Trajectory
    ) -> tuple[CheckpointInfluence, np.ndarray, np.ndarray]:
        """The samples' influence, and what the trajectory measures: of the questions ℓ and its slopes."""
        slopes: list[np.ndarray] = []
        likelihood = np.zeros(0)

        def measure(given: Sequence[Sample]) -> Iterator[Part]:
            nonlocal likelihood
            slopes.clear()
            for names in parts:
                with measuring_in(self.model, names):
                    yield self._part(given, names)
                    ways = [{name: way[name] for name in names} for way in self.displacements]
                    likelihood, found = trajectory.measured(self.model, ways)
                    slopes.append(found)

        influence = measured_in_parts(samples, lambda given: list(measure(given)))
        return influence, likelihood, np.sum(slopes, axis=0)

    def _part(self, samples: Sequence[Sample], names: list[str]) -> Part:
        step = 0 if self.place == 0 else self.job.kept[self.place - 1].step
        seed = self.job.train.seed + step
        found = benchmark_gradients(self.model, self.questions, seed)
        targets = Targets(found, preconditioner(self.job, self.place, names), self.questions.held)
        return measure_part(self.model, samples, self.questions.encoder, targets, seed)


def rollout_samples(job: Trace, model: Any, rollouts: Rollouts, encoder: SampleEncoder, step: int) -> list[Sample]:
    """What the model says now to the first training questions, weighted by its advantage."""
    count = job.influence.samples
    questions = read_questions(job.train.questions.path, max(count, LEAST_PROMPTS))
    return encoder.rollout_samples(rollouts(model, questions, count, step))


def preconditioner(job: Trace, index: int, names: Collection[str]) -> Gradient | None:
    """Of Adam at a kept checkpoint, for these parameters; there is none at the beginning, nor for another optimizer."""
    if not index or not job.moments:
        return None
    epsilon = float(job.train.stage.trainer.get("adam_epsilon", checkpoints.EPSILON))
    return checkpoints.preconditioner(job.moments[index - 1], epsilon, names)


def caveats(job: Trace) -> dict[str, Any]:
    """Where the linear form leaves something out."""
    if job.train.stage.method != "grpo":
        return {}
    arguments = job.train.stage.trainer
    left_out = []
    if arguments.get("beta", 0.0):
        left_out.append(f"the KL penalty (beta {arguments['beta']})")
    steps = arguments.get("steps_per_generation") or 1
    if arguments.get("num_iterations", 1) > 1 or steps > arguments.get("gradient_accumulation_steps", 1):
        left_out.append("clipping on the later steps of a batch")
    if arguments.get("loss_type", TOKEN_MEAN) != TOKEN_MEAN:
        left_out.append(f"the lengths' part in the loss {arguments['loss_type']}")
    if arguments.get("temperature", 1.0) != 1.0:
        left_out.append(f"the temperature ({arguments['temperature']}) of the log-likelihood")
    if arguments.get("use_vllm"):
        left_out.append("vLLM's own settings of sampling (generation_kwargs)")
    return {"rewards only, without": " and ".join(left_out)} if left_out else {}
