"""From a study, and what its earlier stages made, to the jobs of the next ones."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.benchmarks.dataset import prior_splits
from holdfast.config.base import Config
from holdfast.config.jobs import (
    Account,
    Blend,
    BuildBase,
    Check,
    Compare,
    FromFile,
    Predict,
    Sample,
    Select,
    Trace,
    Train,
)
from holdfast.config.measurement import Influence, LedgerSettings, Predictors
from holdfast.config.methods import (
    GRPO,
    SFT,
    AnyStage,
    Distill,
    Interpolate,
    ModelTeacher,
    OwnRollouts,
    Rollouts,
    SelfReasoning,
    TeacherFile,
)
from holdfast.config.model import Model
from holdfast.config.refs import DataRef, FileRef, ModelRef, file_digest
from holdfast.config.results import FinishedStudy
from holdfast.config.schedule import chosen
from holdfast.config.study import Study
from holdfast.data.shards import prior_shard, target_shard
from holdfast.data.teacher_file import require_file
from holdfast.data.training_set import replayed_shards
from holdfast.errors import LONGEST, UserError, reason
from holdfast.journal import METRICS, read_lines
from holdfast.models.base_ref import reference
from holdfast.training.reward_functions import source_digest
from tasks.redaction import redacted
from tasks.stage import MADE, StageRun, file_of, steps_name, trained_model

SampledSource = SelfReasoning | Rollouts | OwnRollouts | TeacherFile


class Start(Config):
    """What every arm starts from."""

    data: DataRef
    base: ModelRef
    references: FileRef
    """The base's own samples on target prompts, by which drift is measured."""


class Provenance(Config):
    """What the report says about where its numbers come from, and which are missing."""

    command: str
    data_version: str
    code: str
    failed: dict[str, str] = {}
    """Arms and analyses that did not finish, and why in one line."""


def failure_reasons(failed: Mapping[str, Exception]) -> dict[str, str]:
    """Why each of them failed, in one line."""
    return {name: redacted(reason(error, LONGEST)) for name, error in failed.items()}


def check_job(study: Study, data: DataRef | None = None, settled: bool = False) -> Check:
    """Refuse what can be refused before time is spent; without data, what needs none, which is then settled."""
    stages = [stage for arm in study.trained.values() for stage in arm]
    functions = {path: digest for stage in stages for path, digest in function_digests(stage).items()}
    sources = [stage.source for stage in stages if isinstance(stage, SFT)]
    teachers = {str(one.path): _teacher(one).digest for one in sources if isinstance(one, TeacherFile)}
    models = [ref for ref in map(teacher_model, stages) if ref is not None]
    teachers |= {ref.path: ref.digest for ref in models}
    return Check(
        seed=study.seed,
        device=study.compute.device,
        study=study,
        data=data,
        settled=settled,
        functions=functions,
        teachers=teachers,
    )


def _teacher(source: TeacherFile) -> FileRef:
    require_file(source.path)
    return FileRef(path=source.path, digest=file_digest(source.path))


def teacher_model(stage: AnyStage) -> ModelRef | None:
    """The model that teaches a stage, where the stage names its path.

    Raises:
        UserError: there is no such model.
    """
    if not isinstance(stage, Distill) or not isinstance(stage.teacher, ModelTeacher):
        return None
    try:
        return reference(Model(path=stage.teacher.path))
    except UserError as error:
        raise UserError(str(error).replace("model.path", "teacher.path")) from error


def base_job(study: Study) -> BuildBase:
    """Build the bundled base model."""
    recipe = study.model.recipe
    seed = study.seed if study.model.seed is None else study.model.seed
    return BuildBase(seed=seed, threads=recipe.threads, device=study.compute.device, recipe=recipe)


def sample_job(study: Study, source: SampledSource, model: ModelRef, train: Train) -> Sample:
    """Sample completions of the prompts that a stage is going to train on, or take them from a file."""
    return Sample(
        seed=train.seed,
        threads=study.compute.threads,
        device=study.compute.device,
        source=FromFile(file=_teacher(source), settings=source) if isinstance(source, TeacherFile) else source,
        model=model,
        base=train.base,
        dtype=study.model.dtype,
        data=train.data,
        questions=train.questions,
        limit=study.evaluation.max_new_tokens,
        batch_size=study.evaluation.batch_size,
        vllm=None if isinstance(source, TeacherFile) else study.evaluation.vllm,
        gpus=study.compute.gpus,
    )


def train_job(study: Study, stage: AnyStage, model: ModelRef, start: Start, seed: int) -> Train:
    """Fine-tune one stage from `model`."""
    name = study.learned_by(stage)
    return Train(
        seed=seed,
        threads=study.compute.threads,
        device=study.compute.device,
        stage=stage.model_copy(update={"target": name if study.targets else None}),
        start=model,
        base=start.base,
        teacher=teacher_model(stage),
        dtype=study.model.dtype,
        data=start.data,
        questions=training_questions(start.data, name if study.targets else ""),
        limit=study.evaluation.max_new_tokens,
        keep=study.evaluation.keep,
        keep_dtype=study.evaluation.keep_dtype,
        evaluation=study.evaluation,
        functions=function_digests(stage),
        keep_moments=study.influence is not None,
        gpus=study.compute.gpus,
        strategy=study.compute.strategy,
    )


def with_old_questions(job: Train, study: Study, earlier: Sequence[str]) -> Train:
    """With the training questions of what its stage replays or protects; `earlier` targets were learned before."""
    data, stage = job.data, job.stage
    priors = [prior.name for prior in study.prior if "train" in prior_splits(prior)] if stage.needs("prior") else []
    targets = earlier if stage.needs("targets") else []
    old = {
        "priors": tuple(shard_ref(data, prior_shard(name, "train")) for name in priors),
        "earlier": tuple(training_questions(data, name) for name in targets),
    }
    return job.model_copy(update=old)


def replay_job(study: Study, train: Train) -> Sample | None:
    """Ask the model that a stage starts from old questions, if the stage replays its own answers to them."""
    replay = train.stage.replay
    if replay is None or replay.answers != "own" or not (old := replayed_shards(train)):
        return None
    source = OwnRollouts(per_prompt=1, prompts=replay.questions)
    return sample_job(study, source, train.start, train).model_copy(update={"replayed": old})


def blend_job(study: Study, stage: Interpolate, end: ModelRef, start: Start) -> Blend:
    """Models between the base and another arm's end."""
    about = {"seed": study.seed, "threads": study.compute.threads, "device": study.compute.device}
    return Blend(**about, start=start.base, end=end, shares=stage.shares)


@functools.cache
def shard_ref(data: DataRef, name: str) -> FileRef:
    """A file of the data."""
    return FileRef(path=data.path / name, digest=file_digest(data.path / name))


def training_questions(data: DataRef, name: str = "") -> FileRef:
    """The shard that stages learn from; of several targets, that of one."""
    return shard_ref(data, target_shard("train", name))


def function_digests(stage: AnyStage) -> dict[str, str]:
    """Digest of the module of every reward function of the user's own: a changed one is another stage."""
    terms = stage.rewards.values() if isinstance(stage, GRPO) else ()
    return {term.function: source_digest(term.function) for term in terms if term.kind == "function"}


def select_job(study: Study, train: Train, ledger: FileRef | None = None) -> Select:
    """Choose the samples of a stage that is to learn from a part of them, by the ledger of a training on all."""
    return Select(
        **_about(train),
        influence=(study.influence or Influence()).model_copy(update={"ledger": None}),
        ledger=ledger,
        gpus=study.compute.gpus,
    )


def trace_job(trained: StageRun, influence: Influence, data: DataRef | None = None, gpus: int = 1) -> Trace:
    """Trace a finished training's forgetting to its samples, by the questions of `data`, or of what it trained on."""
    train = Train.model_validate_json((trained.path / "job.json").read_text())
    steps = chosen(influence.every, sorted(checkpoint.step for checkpoint in trained.result.checkpoints))
    moments = [f"moments/step-{step:06d}.safetensors" for step in steps]
    whole = all(name in trained.result.files for name in moments)
    return Trace(
        **_about(train, data),
        kept=tuple(trained_model(trained, step) for step in steps),
        moments=tuple(file_of(trained, name) for name in moments) if whole else (),
        rates=_rates(trained, steps),
        influence=influence.model_copy(update={"ledger": None}),
        gpus=gpus,
    )


def ledger_job(trained: StageRun, influence: Influence, data: DataRef | None = None) -> Account:
    """Account for the samples of a finished stage, by the questions of `data`."""
    train = Train.model_validate_json((trained.path / "job.json").read_text())
    steps = sorted(checkpoint.step for checkpoint in trained.result.checkpoints)
    return Account(
        **_about(train, data),
        kept=tuple(trained_model(trained, step) for step in steps),
        influence=influence.model_copy(update={"ledger": None}),
        settings=influence.ledger or LedgerSettings(),
        recorded=steps_name(trained.digest),
    )


def predict_job(study: Study, settings: Predictors, trained: StageRun, steps: Sequence[int], data: DataRef) -> Predict:
    """Measure what may predict forgetting at some checkpoints of a finished training, or of a blend."""
    made = MADE.validate_json((trained.path / "job.json").read_bytes())
    train = made if isinstance(made, Train) else None
    logged = "completions.parquet"
    targets = list(study.targets) or [""]
    return Predict(
        seed=study.seed,
        threads=study.compute.threads,
        device=study.compute.device,
        models=tuple(trained_model(trained, step) for step in steps),
        base=made.base if isinstance(made, Train) else made.start,
        dtype=study.model.dtype,
        target=tuple(shard_ref(data, target_shard("validation", name)) for name in targets),
        prior=tuple(shard_ref(data, prior_shard(prior.name, "validation")) for prior in study.prior),
        prompts=settings.prompts,
        samples=settings.samples,
        limit=study.evaluation.max_new_tokens,
        temperature=study.evaluation.temperature,
        batch_size=study.evaluation.batch_size,
        vllm=study.evaluation.vllm,
        train=train,
        written=file_of(trained, logged) if train and logged in trained.result.files else None,
        gpus=study.compute.gpus,
    )


def _about(train: Train, data: DataRef | None = None) -> dict[str, Any]:
    """What jobs about a training have in common with it."""
    data = data or train.data
    return {"seed": train.seed, "threads": train.threads, "device": train.device, "train": train, "data": data}


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


def sampled_source(stage: AnyStage) -> SampledSource | None:
    """The source of a stage if its completions have to be sampled, or read, first."""
    if isinstance(stage, SFT) and isinstance(stage.source, SampledSource):
        return stage.source
    return None


def compare_job(
    name: str, studies: tuple[FinishedStudy, ...], provenance: Provenance, factors: dict[str, tuple[str, ...]]
) -> Compare:
    """Write the report of a study, or of several."""
    return Compare(seed=studies[0].study.seed, name=name, studies=studies, factors=factors, **dict(provenance))
