"""One stage's forgetting, traced to its samples at every kept checkpoint.

Writes influence.parquet (a row for every sample, checkpoint and block of layers), sources.parquet (what each sample
says, and what the source's magnitudes are means of), and path.parquet (what the steps between two checkpoints were
predicted to do to each question, and did).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.config.jobs import Trace
from holdfast.config.measurement import LEAST_PROMPTS
from holdfast.data.shards import read_questions
from holdfast.influence import checkpoints, measures, tables
from holdfast.influence.checkpoint_influence import Sight, look, verify
from holdfast.influence.checkpoints import difference, weights
from holdfast.influence.engine.gradients import Gradient
from holdfast.influence.engine.likelihood import likelihoods
from holdfast.influence.samples import Material, Rollouts, Sample, Sheet, benchmarks, supervised
from holdfast.influence.trajectory import Travelled
from holdfast.journal import Journal
from holdfast.models.image_feature_cache import ImageFeatures, cached_image_features
from holdfast.models.load import load_processor

TOKEN_MEAN = "dapo"
"""TRL's default loss, whose steps `dot` has the scale of."""


class Tracing:
    """What the looks at the checkpoints of one stage share, and what they leave."""

    def __init__(self, job: Trace, journal: Journal, rollouts: Rollouts | None) -> None:
        self.job, self.journal, self.rollouts = job, journal, rollouts
        self.material = Material(load_processor(job.train.start), job.influence.batch_size)
        asked = benchmarks(job.train.data.path, job.influence.questions)
        self.questions = {name: self.material.samples(given) for name, given in asked.items()}
        self.sheet = Sheet(self.questions, self.material, job.influence.probes)
        self.target = read_questions(job.train.data.path / "target-validation.parquet", 1)[0].benchmark
        self.rows: list[dict[str, Any]] = []
        self.texts: list[dict[str, Any]] = []
        self.travelled = Travelled(self.questions, self.material)
        self.summed: dict[str, float] = {}
        self.broken: list[str] = []
        self.spoken: dict[int, Sequence[Sample]] = {}
        self.images: ImageFeatures = {}
        self.begun: dict[str, float] = {}
        """Log-likelihood of a supervised stage's samples under its start."""

    @property
    def source(self) -> str:
        """`grpo`, or where a supervised stage's completions come from."""
        stage = self.job.train.stage
        return stage.method if stage.method == "grpo" else stage.source.kind

    def samples(self, model: Any, known: list[Sample] | None, step: int) -> list[Sample]:
        """A supervised stage's samples stay; those of reinforcement are what the model says now."""
        if known is not None:
            return known
        count, train = self.job.influence.samples, self.job.train
        if self.rollouts is None:
            return self.material.samples(supervised(train, count))
        asked = read_questions(train.data.path / "target-train.parquet", max(count, LEAST_PROMPTS))
        return self.material.sampled(self.rollouts(model, asked, count, step))

    def preconditioner(self, place: int) -> Gradient | None:
        """Of Adam at a kept checkpoint; there is none at the beginning, nor for another optimizer."""
        if not place or not self.job.moments:
            return None
        epsilon = float(self.job.train.stage.trainer.get("adam_epsilon", checkpoints.EPSILON))
        return checkpoints.preconditioner(self.job.moments[place - 1], epsilon)

    def note(self, step: int, sight: Sight, samples: Sequence[Sample]) -> None:
        """Keep a look's rows and log its measures."""
        self.rows += sight.rows(self.source, step)
        self.broken += [f"{sample} at step {step}" for sample in sight.broken]
        own = sight.of_samples()
        self.texts += [
            {"sample": s.id, "prompt": s.prompt, "step": step, "text": s.text} | own.get(s.id, {}) for s in samples
        ]
        found = sight.measures(self.target)
        found |= self._reference_lbk(step, sight)
        found |= self._under_the_start(step, sight)
        self._sum(step, found)
        self.log(step, found)

    def log(self, step: int, found: Mapping[str, float]) -> None:
        """Log measures; one that is NaN has no value, as a cosine with nothing: broken samples are told by name."""
        known = {f"influence/{self.source}/{name}": value for name, value in found.items() if not math.isnan(value)}
        self.journal.log(step, known)

    def _under_the_start(self, step: int, sight: Sight) -> dict[str, float]:
        """A supervised stage's samples were measured at step 0; rollouts wait until the start is there again."""
        if self.rollouts is not None:
            self.spoken[step] = sight.samples
            return {}
        if step == 0:
            self.begun = dict(zip([sample.id for sample in sight.samples], sight.loglik.tolist(), strict=True))
        return {"perplexity_start": self._foreign(step, sight.samples, self.begun)}

    def _foreign(self, step: int, samples: Sequence[Sample], begun: Mapping[str, float]) -> float:
        """Keep what the start thinks of each sample; returns their perplexity under it."""
        for row in self.texts:
            if row["step"] == step:
                row["loglik_start"] = begun.get(row["sample"])
        known = [sample for sample in samples if sample.id in begun]
        loglik = np.array([begun[sample.id] for sample in known])
        return measures.perplexity(loglik, np.array([len(sample.completion) for sample in known]))

    def judge_rollouts(self) -> None:
        """Log how foreign each checkpoint's rollouts would have been to the model that the stage began with."""
        if not self.spoken:
            return
        start = checkpoints.load(self.job.train, None)
        for step, samples in self.spoken.items():
            with cached_image_features(start, self.images):
                found = likelihoods(start, self.material.batches(samples, start.device))
            begun = dict(zip([sample.id for sample in samples], found, strict=True))
            self.log(step, {"perplexity_start": self._foreign(step, samples, begun)})

    def _reference_lbk(self, step: int, sight: Sight) -> dict[str, float]:
        """Of the steps that led here; none at the beginning."""
        if step == 0:
            return {}
        return {
            f"{name}/lbk_reference": measures.reference_lbk(
                self.travelled.changes(name, step), sight.spread_norms[name], sight.errors
            )
            for name in self.questions
        }

    def _sum(self, step: int, found: dict[str, float]) -> None:
        """TracInCP: Σ over checkpoints of rate × steps × dot, with what was learned from next at each.

        `adam_tracin` lacks the way to the first kept checkpoint, at whose beginning there are no second moments.
        """
        steps = [0, *(kept.step for kept in self.job.kept)]
        place = steps.index(step)
        if place + 1 == len(steps) or not self.job.rates:
            return
        found["stride"] = stride = self.job.rates[place] * (steps[place + 1] - step)
        for name, (kind, total) in product(self.questions, {"dot": "tracin", "adam_dot": "adam_tracin"}.items()):
            # Where no rollout has an advantage, nothing is learned, and there is no dot.
            if math.isfinite(dot := found.get(f"{name}/{kind}", math.nan)):
                self.summed[f"{name}/{total}"] = self.summed.get(f"{name}/{total}", 0.0) + stride * dot


def trace(job: Trace, out: Path, journal: Journal, rollouts: Rollouts | None) -> dict[str, Any]:
    """Look at every kept checkpoint of a stage; returns notes.

    Raises:
        UserError: a checkpoint is not what was recorded, a layer is not supported, a sample supervises nothing.
    """
    tracing = Tracing(job, journal, rollouts)
    places = [None, *job.kept]
    samples: list[Sample] | None = None
    model, before = checkpoints.load(job.train, None), None
    for index, kept in enumerate(places):
        step = kept.step if kept is not None else 0
        following = checkpoints.load(job.train, job.kept[index]) if index < len(job.kept) else None
        here = weights(model)
        ahead = difference(weights(following), here) if following is not None else None
        behind = difference(here, before) if before is not None else None
        with cached_image_features(model, tracing.images):
            given = tracing.samples(model, samples, step)
            if index == 0:
                verify(model, given, tracing.material)
            samples = given if rollouts is None else None
            sight = look(model, given, tracing.sheet, tracing.preconditioner(index), job.train.seed + step)
            tracing.travelled.visit(model, step, ahead, behind)
        tracing.note(step, sight, given)
        journal.progress(index + 1, len(places))
        model, before = following, here
    tracing.judge_rollouts()
    return _finish(tracing, out)


def _finish(tracing: Tracing, out: Path) -> dict[str, Any]:
    travelled = tracing.travelled
    last = tracing.job.kept[-1].step
    found = tracing.summed | travelled.measures(tracing.target)
    tracing.log(last, found)
    tables.write_rows(out / "influence.parquet", tracing.rows)
    tables.write_sources(out / "sources.parquet", tracing.texts)
    tables.write_path(out / "path.parquet", travelled.rows)
    broken = {"samples without a finite gradient, left out,": tracing.broken} if tracing.broken else {}
    return {"source": tracing.source, **broken, **caveats(tracing.job)}


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
