"""What a stage forgot, traced to its samples: their influence on every benchmark at every kept checkpoint.

Writes influence.parquet (a row for every sample, checkpoint and block of layers), sources.parquet (what each sample
says, and what the source's magnitudes are means of), and path.parquet (what the steps between two checkpoints were
predicted to do to each question, and did).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from holdfast.config.jobs import Trace
from holdfast.config.measurement import LEAST_PROMPTS
from holdfast.data.shards import read_questions
from holdfast.influence import checkpoints
from holdfast.influence.benchmark_gradients import BenchmarkQuestions, benchmark_gradients
from holdfast.influence.checkpoint_influence import Targets, measure_checkpoint, verify
from holdfast.influence.checkpoints import displacement
from holdfast.influence.engine.gradients import Gradient
from holdfast.influence.engine.likelihood import likelihoods
from holdfast.influence.record import TraceRecord, reference_lbk
from holdfast.influence.samples import Rollouts, Sample, SampleEncoder, benchmark_questions, supervised_completions
from holdfast.influence.trajectory import Trajectory
from holdfast.journal import Journal
from holdfast.models.image_feature_cache import ImageFeatures, cached_image_features
from holdfast.models.load import load_processor

TOKEN_MEAN = "dapo"
"""TRL's default loss, whose steps `dot` has the scale of."""


def trace(job: Trace, out: Path, journal: Journal, rollouts: Rollouts | None) -> dict[str, Any]:
    """Measure influence where a stage began and at every checkpoint that it kept; returns notes.

    A supervised stage's samples stay the same; with `rollouts`, they are what the model says at each checkpoint.

    Raises:
        UserError: a checkpoint is not what was recorded, a layer is not supported, a sample supervises nothing.
    """
    encoder = SampleEncoder(load_processor(job.train.start), job.influence.batch_size)
    completions = benchmark_questions(job.train.data.path, job.influence.questions)
    questions = BenchmarkQuestions(
        {name: encoder.samples(given) for name, given in completions.items()}, encoder, job.influence.probes
    )
    trajectory = Trajectory(questions.samples, encoder)
    record = TraceRecord(job, journal, list(completions))
    images: ImageFeatures = {}
    samples: list[Sample] = []
    steps = [0, *(kept.step for kept in job.kept)]
    model, before = checkpoints.load(job.train, None), None
    for index, step in enumerate(steps):
        following = checkpoints.load(job.train, job.kept[index]) if index < len(job.kept) else None
        here, seed = checkpoints.weights(model), job.train.seed + step
        ahead = displacement(checkpoints.weights(following), here) if following is not None else None
        behind = displacement(here, before) if before is not None else None
        with cached_image_features(model, images):
            if rollouts is not None:
                samples = rollout_samples(job, model, rollouts, encoder, step)
            elif index == 0:
                samples = encoder.samples(supervised_completions(job.train, job.influence.samples))
            if index == 0:
                verify(model, samples, encoder)
            targets = Targets(benchmark_gradients(model, questions, seed), preconditioner(job, index))
            influence = measure_checkpoint(model, samples, encoder, targets, seed)
            trajectory.measure(model, step, ahead, behind)
        record.add(step, influence, samples, reference_lbk(influence, trajectory, step))
        journal.progress(index + 1, len(steps))
        model, before = following, here
    if rollouts is not None:
        start = checkpoints.load(job.train, None)
        for step, finite in record.samples.items():
            with cached_image_features(start, images):
                record.add_start(step, likelihoods(start, encoder.batches(finite, start.device)))
    record.write(out, trajectory)
    return {"source": record.source, **record.notes(), **caveats(job)}


def rollout_samples(job: Trace, model: Any, rollouts: Rollouts, encoder: SampleEncoder, step: int) -> list[Sample]:
    """What the model says now to the first training questions, weighted by its advantage."""
    count = job.influence.samples
    questions = read_questions(job.train.data.path / "target-train.parquet", max(count, LEAST_PROMPTS))
    return encoder.rollout_samples(rollouts(model, questions, count, step))


def preconditioner(job: Trace, index: int) -> Gradient | None:
    """Of Adam at a kept checkpoint; there is none at the beginning, nor for another optimizer."""
    if not index or not job.moments:
        return None
    epsilon = float(job.train.stage.trainer.get("adam_epsilon", checkpoints.EPSILON))
    return checkpoints.preconditioner(job.moments[index - 1], epsilon)


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
