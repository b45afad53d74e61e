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
    images: ImageFeatures = {}
    samples: list[Sample] = []
    steps = [0, *(kept.step for kept in job.kept)]
    here = checkpoints.computing(checkpoints.load(job.train, None, settings), job.train, settings)
    before: Gradient | None = None
    parts = parts_of(here.model, settings, len(completions))
    for index, step in enumerate(steps):
        following = checkpoints.load(job.train, job.kept[index], settings) if index < len(job.kept) else None
        with cached_image_features(here.model, images):
            if rollouts is not None:
                samples = rollout_samples(job, here.model, rollouts, encoder, step)
            elif index == 0:
                samples = encoder.samples(supervised_completions(job.train, settings.samples))
            if index == 0:
                for names in parts:
                    with measuring_in(here.model, names):
                        verify(here.model, samples, encoder)
            ahead = displacement(following.weights, here.weights) if following is not None else None
            behind = displacement(here.weights, before) if before is not None else None
            point = Checkpoint(job, index, here.model, questions, [way for way in (ahead, behind) if way is not None])
            influence = point.measured(samples, parts, trajectory)
        record.add(step, influence, samples, reference_lbk(influence, trajectory, step))
        journal.progress(index + 1, len(steps))
        if following is not None:
            before, here = here.weights, checkpoints.computing(following, job.train, settings)
    if rollouts is not None:
        del following, here
        start = checkpoints.computing(checkpoints.load(job.train, None, settings), job.train, settings).model
        for step, finite in record.samples.items():
            with cached_image_features(start, images):
                record.add_start(step, likelihoods(start, encoder.batches(finite, start.device)))
    record.write(out, trajectory)
    told = {"measured in parts,": len(parts)} if len(parts) > 1 else {}
    return {"source": record.source, **record.notes(), **told, **caveats(job)}


class Checkpoint(NamedTuple):
    """One checkpoint of a trace, and the way to the next one and from the last."""

    job: Trace
    place: int
    """Of the checkpoint among those of the trace, the beginning first."""
    model: Any
    questions: BenchmarkQuestions
    displacements: list[Gradient]

    def measured(
        self, samples: Sequence[Sample], parts: list[list[str]], trajectory: Trajectory
    ) -> CheckpointInfluence:
        """The samples' influence; the trajectory takes the questions' slopes."""
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
        step = 0 if self.place == 0 else self.job.kept[self.place - 1].step
        trajectory.add(step, likelihood, np.sum(slopes, axis=0), last=self.place == len(self.job.kept))
        return influence

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
