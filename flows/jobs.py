"""From a study, and what its earlier stages made, to the jobs of the next ones."""

from __future__ import annotations

from collections.abc import Mapping

from holdfast.config.base import Config
from holdfast.config.jobs import (
    BuildBase,
    Check,
    Compare,
    Contrast,
    Evaluate,
    FinishedMember,
    RunRecord,
    Sample,
    Select,
    Trace,
    Train,
)
from holdfast.config.measurement import Influence
from holdfast.config.methods import GRPO, SFT, AnyStage, Rollouts, SelfReasoning
from holdfast.config.refs import DataRef, FileRef, ModelRef
from holdfast.config.study import Study
from holdfast.config.sweep import Sweep
from holdfast.errors import LONGEST, reason
from holdfast.journal import METRICS, read_lines
from holdfast.training.reward_functions import source_digest
from tasks.stage import StageRun, file_of, trained_model


class Start(Config):
    """What every arm starts from."""

    data: DataRef
    base: ModelRef
    reference: FileRef
    """drift.parquet of the base evaluation."""


class Provenance(Config):
    """What the report says about where its numbers come from, and which are missing."""

    command: str
    data_version: str
    code: str
    failed: dict[str, str] = {}
    """Arms and analyses that did not finish, and why in one line."""


def failure_reasons(failed: Mapping[str, Exception]) -> dict[str, str]:
    """Why each of them failed, in one line."""
    return {name: reason(error, LONGEST) for name, error in failed.items()}


def check_job(study: Study, data: DataRef) -> Check:
    """Refuse what can be refused before time is spent."""
    stages = [stage for arm in study.arms.values() for stage in arm]
    functions = {path: digest for stage in stages for path, digest in function_digests(stage).items()}
    return Check(seed=study.seed, device=study.compute.device, study=study, data=data, functions=functions)


def base_job(study: Study) -> BuildBase:
    """Build the bundled base model."""
    recipe = study.model.recipe
    return BuildBase(seed=study.seed, threads=recipe.threads, device=study.compute.device, recipe=recipe)


def evaluate_job(study: Study, data: DataRef, model: ModelRef) -> Evaluate:
    """Measure the base model."""
    return Evaluate(
        seed=study.seed,
        threads=study.compute.threads,
        device=study.compute.device,
        model=model,
        dtype=study.model.dtype,
        data=data,
        evaluation=study.evaluation,
    )


def sample_job(study: Study, source: SelfReasoning | Rollouts, model: ModelRef, start: Start) -> Sample:
    """Sample completions of the training prompts."""
    return Sample(
        seed=study.seed,
        threads=study.compute.threads,
        device=study.compute.device,
        source=source,
        model=model,
        base=start.base,
        dtype=study.model.dtype,
        data=start.data,
        evaluation=study.evaluation,
    )


def train_job(study: Study, stage: AnyStage, model: ModelRef, samples: FileRef | None, start: Start) -> Train:
    """Fine-tune one stage from `model`."""
    return Train(
        seed=study.seed,
        threads=study.compute.threads,
        device=study.compute.device,
        stage=stage,
        start=model,
        base=start.base,
        dtype=study.model.dtype,
        data=start.data,
        samples=samples,
        reference=start.reference,
        evaluation=study.evaluation,
        functions=function_digests(stage),
        keep_moments=study.influence is not None,
    )


def function_digests(stage: AnyStage) -> dict[str, str]:
    """Digest of the module of every reward function of the user's own: a changed one is another stage."""
    terms = stage.rewards.values() if isinstance(stage, GRPO) else ()
    return {term.function: source_digest(term.function) for term in terms if term.kind == "function"}


def select_job(study: Study, train: Train) -> Select:
    """Choose the samples of a stage that is to learn from a part of them."""
    return Select(
        seed=study.seed,
        threads=study.compute.threads,
        device=study.compute.device,
        train=train,
        influence=study.influence or Influence(),
    )


def trace_job(trained: StageRun, influence: Influence) -> Trace:
    """Trace a finished training's forgetting to its samples."""
    train = Train.model_validate_json((trained.path / "job.json").read_text())
    steps = sorted(checkpoint.step for checkpoint in trained.result.checkpoints)
    moments = [f"moments/step-{step:06d}.safetensors" for step in steps]
    whole = all(name in trained.result.files for name in moments)
    return Trace(
        seed=train.seed,
        threads=train.threads,
        device=train.device,
        train=train,
        kept=tuple(trained_model(trained, step) for step in steps),
        moments=tuple(file_of(trained, name) for name in moments) if whole else (),
        rates=_rates(trained, steps),
        influence=influence,
    )


def _rates(trained: StageRun, steps: list[int]) -> tuple[float, ...]:
    """Mean learning rate on the way to each step, as far as it was logged."""
    logged = {
        line["step"]: line["metrics"]["train/learning_rate"]
        for line in read_lines(trained.path / METRICS)
        if "train/learning_rate" in line.get("metrics", {})
    }
    intervals = [
        [rate for step, rate in logged.items() if before < step <= now]
        for before, now in zip([0, *steps], steps, strict=False)
    ]
    return tuple(sum(rates) / len(rates) for rates in intervals) if all(intervals) else ()


def sampled_source(stage: AnyStage) -> SelfReasoning | Rollouts | None:
    """The source of a stage if its completions have to be sampled first."""
    if isinstance(stage, SFT) and isinstance(stage.source, SelfReasoning | Rollouts):
        return stage.source
    return None


def compare_job(study: Study, data: DataRef, runs: tuple[RunRecord, ...], provenance: Provenance) -> Compare:
    """Write the report."""
    return Compare(seed=study.seed, study=study, data=data, runs=runs, **dict(provenance))


def contrast_job(sweep: Sweep, members: tuple[FinishedMember, ...], provenance: Provenance) -> Contrast:
    """Write the report of a sweep."""
    seed = sweep.members[0].study.seed
    return Contrast(seed=seed, name=sweep.name, factors=sweep.factors, members=members, **dict(provenance))
