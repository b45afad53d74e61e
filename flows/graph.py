"""The order of a study's stages: one walk, which plans a study by finding them and runs it by making them."""

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


class Steps(Protocol):
    """How a stage's run is come by."""

    def run(self, job: AnyJob, arm: str | None = None, stage: int = 0) -> StageRun: ...

    def keep(self, samples: StageRun) -> FileRef:
        """Make samples a part of the data before anyone trains on them."""


def begin(study: Study, data: DataRef, steps: Steps) -> tuple[Runs, Start]:
    """The base model, built if it is the bundled one, and its measurement."""
    built = (steps.run(base_job(study)),) if study.model.path == "bundled" else ()
    base = trained_model(built[0]) if built else reference(study.model)
    measured = steps.run(evaluate_job(study, data, base))
    return (*built, measured), Start(data=data, base=base, reference=file_of(measured, "drift.parquet"))


def follow(study: Study, arm: str, start: Start, sampled: Mapping[str, Runs], steps: Steps) -> Runs:
    """An arm's finished stages in order, samplings included.

    `sampled` has the stages of the arms whose rollouts it learns from.
    """
    model = start.base
    runs: list[StageRun] = []
    for number, stage in enumerate(study.arms[arm]):
        samples = None
        source = sampled_source(stage)
        if source is not None:
            speaker = _speaker(source, start, sampled)
            runs.append(steps.run(sample_job(study, source, speaker, start), arm, number))
            samples = steps.keep(runs[-1])
        job = train_job(study, stage, model, samples, start)
        if isinstance(stage, SFT) and stage.select is not None:
            runs.append(steps.run(select_job(study, job), arm, number))
            job = job.model_copy(update={"samples": steps.keep(runs[-1])})
        runs.append(steps.run(job, arm, number))
        model = trained_model(runs[-1])
    return tuple(runs)


def traced(study: Study, arm: str, runs: Runs, steps: Steps) -> Runs:
    """The influence of an arm's samples, for every stage that trained; none where the study asks for none."""
    if study.influence is None:
        return ()
    trained = [run for run in runs if run.kind == "train"]
    return tuple(steps.run(trace_job(run, study.influence), arm, run.stage) for run in trained)


def in_order(study: Study) -> list[str]:
    """Arms so that those that are sampled come first, and among equals reinforcement, which takes longest."""
    sorter = TopologicalSorter({arm: study.sampled_arms(arm) for arm in study.arms})
    sorter.prepare()
    order: list[str] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=lambda arm: (not reinforced(study, arm), list(study.arms).index(arm)))
        sorter.done(*ready)
        order += ready
    return order


def _speaker(source: SelfReasoning | Rollouts, start: Start, sampled: Mapping[str, Runs]) -> ModelRef:
    """The model that is sampled."""
    if isinstance(source, SelfReasoning):
        return start.base
    return trained_model(sampled[source.arm][-1], source.step)


def reinforced(study: Study, arm: str) -> bool:
    """Whether an arm learns by GRPO, which takes longest."""
    return any(isinstance(stage, GRPO) for stage in study.arms[arm])
