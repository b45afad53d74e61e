"""A study's graph of stages: which there are, what each needs, and the order of the arms.

A plan follows it with an executor that only finds stages, a study with one that also runs them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from graphlib import TopologicalSorter
from typing import NamedTuple, Protocol

from flows.evaluation import REFERENCES, evaluated, questions_of, units_of
from flows.jobs import (
    SampledSource,
    Start,
    base_job,
    blend_job,
    ledger_job,
    predict_job,
    replay_job,
    sample_job,
    sampled_source,
    select_job,
    trace_job,
    train_job,
    with_old_questions,
)
from holdfast.config.jobs import AnyJob
from holdfast.config.measurement import Influence
from holdfast.config.methods import GRPO, SFT, ArmTeacher, Distill, Interpolate, OwnRollouts, Rollouts
from holdfast.config.refs import DataRef, FileRef, ModelRef
from holdfast.config.results import Evaluated
from holdfast.config.schedule import chosen
from holdfast.config.study import Study
from holdfast.models.base_ref import read_as, reference
from tasks.stage import COMMON, Position, StageRun, file_of, trained_model

Runs = tuple[StageRun, ...]


LEDGER = "ledger.parquet"


class Replicate(NamedTuple):
    """An arm trained with one training seed; numbers count from 1."""

    arm: str
    number: int


class Executor(Protocol):
    """Gives the finished run of a stage."""

    def run(self, job: AnyJob, position: Position = COMMON) -> StageRun: ...

    def keep(self, samples: StageRun) -> FileRef:
        """Make samples a part of the data before anyone trains on them."""

    def known_units(self, models: Sequence[ModelRef]) -> dict[str, FileRef]:
        """What earlier evaluations left about these models."""


class Base(NamedTuple):
    """The runs that built the base, what every arm starts from, and what the base answers."""

    runs: Runs
    start: Start
    evaluated: tuple[Evaluated, ...]


def replicates(study: Study) -> list[Replicate]:
    """All trainings of a study, in the order in which they ask for room."""
    return [Replicate(arm, number) for number in range(1, study.replicates + 1) for arm in arm_order(study)]


def base_stages(study: Study, data: DataRef, executor: Executor) -> Base:
    """Build the base model, if it is one that is built, and evaluate it."""
    built = (executor.run(base_job(study)),) if study.model.is_built else ()
    base = read_as(study.model, trained_model(built[0])) if built else reference(study.model)
    questions = questions_of(study, data, base)
    units = units_of(questions, [base], COMMON, executor)
    start = Start(data=data, base=base, references=units[base.step, REFERENCES])
    return Base(built, start, evaluated(questions, units, COMMON))


def arm_stages(
    study: Study, replicate: Replicate, start: Start, sampled: Mapping[str, Runs], executor: Executor
) -> Runs:
    """The finished stages of an arm's replicate in order, samplings included.

    `sampled` has the stages, of the same replicate, of the arms whose rollouts or whose end it learns from, or by whose
    ledger it chooses.
    """
    arm, number = replicate
    seed = study.training_seed(number)
    model = start.base
    runs: list[StageRun] = []
    for stage in study.arms[arm]:
        if isinstance(stage, Interpolate):
            blend = blend_job(study, stage, trained_model(sampled[stage.arm][-1]), start)
            # From here on its models are evaluated and compared as a training's checkpoints are.
            return (executor.run(blend, Position(arm, number)).model_copy(update={"kind": "train"}),)
    for place, stage in enumerate(study.trained[arm]):
        position = Position(arm, number, place)
        job = train_job(study, stage, model, start, seed).model_copy(update={"keep_steps": study.accounted(arm)})
        job = with_old_questions(job, study, study.earlier(arm, place))
        source = sampled_source(stage)
        if source is not None:
            model_to_sample = model if isinstance(source, OwnRollouts) else _sampled_model(source, start, sampled)
            runs.append(executor.run(sample_job(study, source, model_to_sample, job), position))
            job = job.model_copy(update={"samples": executor.keep(runs[-1])})
        if isinstance(stage, SFT) and stage.select is not None:
            ledger = None
            if stage.select.arm is not None:
                whole = sampled[stage.select.arm][-1]
                blamed = executor.run(
                    ledger_job(whole, study.influence or Influence(), start.data), Position(whole.arm, whole.replicate)
                )
                ledger = file_of(blamed, LEDGER)
                runs.append(blamed)
            runs.append(executor.run(select_job(study, job, ledger), position))
            job = job.model_copy(update={"samples": executor.keep(runs[-1])})
        replay = replay_job(study, job)
        if replay is not None:
            runs.append(executor.run(replay, position))
            job = job.model_copy(update={"replayed": executor.keep(runs[-1])})
        if isinstance(stage, Distill) and isinstance(stage.teacher, ArmTeacher):
            job = job.model_copy(update={"teacher": trained_model(sampled[stage.teacher.arm][-1])})
        runs.append(executor.run(job, position))
        model = trained_model(runs[-1])
    return tuple(runs)


def evaluation_stages(study: Study, trained: StageRun, start: Start, executor: Executor) -> tuple[Evaluated, ...]:
    """What the checkpoints of a training answer, of those that it kept the ones that are evaluated."""
    questions = questions_of(study, start.data, start.base, start.references)
    models = [trained_model(trained, step) for step in evaluated_steps(study, trained)]
    position = Position(trained.arm, trained.replicate, trained.stage)
    return evaluated(questions, units_of(questions, models, position, executor), position)


def evaluated_steps(study: Study, trained: StageRun) -> list[int]:
    """Of the checkpoints that a training kept, or a blend made, those that are evaluated."""
    kept = [checkpoint.step for checkpoint in trained.result.checkpoints]
    return sorted(kept) if trained.arm not in study.trained else chosen(study.evaluation.every, kept)


def predictor_stages(study: Study, runs: Runs, data: DataRef, executor: Executor) -> Runs:
    """What may predict forgetting, of every training of a replicate; none where the study does not ask."""
    if study.predictors is None:
        return ()
    return tuple(
        executor.run(
            predict_job(study, study.predictors, run, evaluated_steps(study, run), data),
            Position(run.arm, run.replicate, run.stage),
        )
        for run in runs
        if run.kind == "train"
    )


def influence_stages(study: Study, runs: Runs, start: Start, executor: Executor) -> Runs:
    """The influence of a replicate's samples, for every stage that trained; none where the study asks for none."""
    if study.influence is None:
        return ()
    # Ledgers first, since steps that wait for them take room.
    made: list[Callable[..., AnyJob]] = [ledger_job] if study.influence.ledger is not None else []
    made.append(partial(trace_job, gpus=study.compute.gpus))
    return tuple(
        executor.run(job(run, study.influence, start.data), Position(run.arm, run.replicate, run.stage))
        for run in runs
        if run.kind == "train" and run.arm in study.trained
        for job in made
    )


def arm_order(study: Study) -> list[str]:
    """Arms so that those that are sampled come first, and among equals those with GRPO, which takes longest."""
    sorter = TopologicalSorter({arm: study.waits_for(arm) for arm in study.arms})
    sorter.prepare()
    order: list[str] = []
    while sorter.is_active():
        ready = sorted(
            sorter.get_ready(), key=lambda arm: (not learns_by_grpo(study, arm), list(study.arms).index(arm))
        )
        sorter.done(*ready)
        order += ready
    return order


def needed_arms(study: Study, arm: str) -> list[str]:
    """An arm after all those that it learns from, directly or not."""
    needed, waiting = {arm}, [arm]
    while waiting:
        others = study.waits_for(waiting.pop()) - needed
        needed |= others
        waiting += others
    return [one for one in arm_order(study) if one in needed]


def _sampled_model(source: SampledSource, start: Start, sampled: Mapping[str, Runs]) -> ModelRef:
    """The model that is sampled; a file has been written already."""
    if not isinstance(source, Rollouts):
        return start.base
    return trained_model(sampled[source.arm][-1], source.step)


def learns_by_grpo(study: Study, arm: str) -> bool:
    """Whether an arm has a GRPO stage."""
    return any(isinstance(stage, GRPO) for stage in study.arms[arm])
