"""A study's graph of stages: which there are, what each needs, and the order of the arms.

A plan follows it with an executor that only finds stages, a study with one that also runs them.
"""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import TopologicalSorter
from typing import Protocol

from flows.jobs import Start, base_job, evaluate_job, sample_job, sampled_source, select_job, trace_job, train_job
from holdfast.config.jobs import AnyJob
from holdfast.config.methods import GRPO, SFT, Rollouts, SelfReasoning
from holdfast.config.refs import DataRef, FileRef, ModelRef
from holdfast.config.study import Study
from holdfast.models.base_ref import reference
from tasks.stage import StageRun, file_of, trained_model

Runs = tuple[StageRun, ...]


class Executor(Protocol):
    """Gives the finished run of a stage."""

    def run(self, job: AnyJob, arm: str | None = None, stage: int = 0) -> StageRun: ...

    def keep(self, samples: StageRun) -> FileRef:
        """Make samples a part of the data before anyone trains on them."""


def base_stages(study: Study, data: DataRef, executor: Executor) -> tuple[Runs, Start]:
    """The runs that build the base model, if it is the bundled one, and evaluate it; what every arm starts from."""
    built = (executor.run(base_job(study)),) if study.model.path == "bundled" else ()
    base = trained_model(built[0]) if built else reference(study.model)
    measured = executor.run(evaluate_job(study, data, base))
    return (*built, measured), Start(data=data, base=base, reference=file_of(measured, "drift.parquet"))


def arm_stages(study: Study, arm: str, start: Start, sampled: Mapping[str, Runs], executor: Executor) -> Runs:
    """An arm's finished stages in order, samplings included.

    `sampled` has the stages of the arms whose rollouts it learns from.
    """
    model = start.base
    runs: list[StageRun] = []
    for number, stage in enumerate(study.arms[arm]):
        samples = None
        source = sampled_source(stage)
        if source is not None:
            model_to_sample = _sampled_model(source, start, sampled)
            runs.append(executor.run(sample_job(study, source, model_to_sample, start), arm, number))
            samples = executor.keep(runs[-1])
        job = train_job(study, stage, model, samples, start)
        if isinstance(stage, SFT) and stage.select is not None:
            runs.append(executor.run(select_job(study, job), arm, number))
            job = job.model_copy(update={"samples": executor.keep(runs[-1])})
        runs.append(executor.run(job, arm, number))
        model = trained_model(runs[-1])
    return tuple(runs)


def influence_stages(study: Study, arm: str, runs: Runs, executor: Executor) -> Runs:
    """The influence of an arm's samples, for every stage that trained; none where the study asks for none."""
    if study.influence is None:
        return ()
    trained = [run for run in runs if run.kind == "train"]
    return tuple(executor.run(trace_job(run, study.influence), arm, run.stage) for run in trained)


def arm_order(study: Study) -> list[str]:
    """Arms so that those that are sampled come first, and among equals those with GRPO, which takes longest."""
    sorter = TopologicalSorter({arm: study.sampled_arms(arm) for arm in study.arms})
    sorter.prepare()
    order: list[str] = []
    while sorter.is_active():
        ready = sorted(
            sorter.get_ready(), key=lambda arm: (not learns_by_grpo(study, arm), list(study.arms).index(arm))
        )
        sorter.done(*ready)
        order += ready
    return order


def _sampled_model(source: SelfReasoning | Rollouts, start: Start, sampled: Mapping[str, Runs]) -> ModelRef:
    """The model that is sampled."""
    if isinstance(source, SelfReasoning):
        return start.base
    return trained_model(sampled[source.arm][-1], source.step)


def learns_by_grpo(study: Study, arm: str) -> bool:
    """Whether an arm has a GRPO stage."""
    return any(isinstance(stage, GRPO) for stage in study.arms[arm])
