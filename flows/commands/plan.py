"""What a study is going to do: which stages are there already, and about how long the others will take.

A stage's key is known when its inputs are, so stages are looked up in the order of the graph, as far as they are found.
Times come from earlier runs of the same stage; without any, and only for the bundled model, from rules of thumb taken
on two CPU cores.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from flows.estimate import Estimates, StageId, rough_time, stage_ids
from flows.graph import (
    Replicate,
    Runs,
    arm_stages,
    base_stages,
    evaluation_stages,
    influence_stages,
    predictor_stages,
    replicates,
)
from flows.jobs import Start
from holdfast.benchmarks.targets.protocol import described
from holdfast.config.jobs import AnyJob, MakeData
from holdfast.config.model import Model
from holdfast.config.refs import DataRef, FileRef, ModelRef
from holdfast.config.study import Study
from holdfast.config.sweep import Sweep
from holdfast.config.targets import Jigsaw, Target
from tasks import data, slots
from tasks.evaluations import known_units
from tasks.stage import COMMON, Context, Position, StageRun, file_of, find_stage
from tasks.tracking import open_store

ALL_THERE = "Everything is there; only the report may be written again."


class PlannedStage(NamedTuple):
    """A stage as the plan shows it."""

    stage_id: StageId
    found: bool
    seconds: float | None
    """About what it will take; None where nobody knows, or where it is found."""


class NotThere(Exception):
    """A stage that has to run."""


class StageFinder:
    """The executor that looks stages up and runs nothing."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.found: set[StageId] = set()

    def run(self, job: AnyJob, position: Position = COMMON) -> StageRun:
        run = find_stage(job, self.context, position)
        if run is None:
            raise NotThere
        self.found.add(StageId(job.verb, position))
        return run

    def known_units(self, models: Sequence[ModelRef]) -> dict[str, FileRef]:
        return known_units(open_store(self.context.root), models)

    def keep(self, samples: StageRun) -> FileRef:
        return file_of(samples, "samples.parquet")


def plan(study: Study, root: Path) -> list[PlannedStage]:
    """Every stage in order. UserError where the data or the model cannot be used."""
    finder = StageFinder(Context(root=root, study=study, study_run=""))
    with suppress(NotThere):
        _find_stages(study, root, finder)
    estimates = Estimates(study, root)
    found = {stage_id: stage_id in finder.found for stage_id in stage_ids(study)}
    return [PlannedStage(one, there, None if there else estimates.seconds(one)) for one, there in found.items()]


def remaining(study: Study, stages: list[PlannedStage]) -> float | None:
    """About how long what is left will take, with as many stages at a time as this machine has room for."""
    left = {stage.stage_id: 0.0 if stage.found else stage.seconds for stage in stages}
    known = {stage_id: seconds for stage_id, seconds in left.items() if seconds is not None}
    if len(known) < len(left):
        return None
    chains: dict[Replicate, float] = {}
    for replicate in replicates(study):
        arm, number = replicate
        own = sum(seconds for stage_id, seconds in known.items() if stage_id.position[:2] == replicate)
        before = (chains[Replicate(other, number)] for other in study.waits_for(arm))
        chains[replicate] = own + max(before, default=0.0)
    alone = sum(seconds for stage_id, seconds in known.items() if stage_id.position.arm is None)
    together = sum(seconds for stage_id, seconds in known.items() if stage_id.position.arm is not None)
    return alone + max(together / stages_at_once(study), *chains.values())


def stages_at_once(study: Study) -> int:
    """How many stages run at a time."""
    if study.compute.device != "cpu" and slots.gpus():
        return len(slots.gpus())
    return study.compute.parallel or max(1, slots.cores() // study.compute.threads)


def plan_lines(experiment: Study | Sweep, plans: list[list[PlannedStage]]) -> list[str]:
    """The plans of an experiment's studies in lines for a person."""
    if isinstance(experiment, Sweep):
        return _sweep_lines(experiment, plans)
    stages = plans[0]
    lines = [_summary(experiment)]
    by_name: dict[str, list[PlannedStage]] = {}
    for stage in stages:
        by_name.setdefault(_name(stage.stage_id), []).append(stage)
    lines += [f"  {name:<24} {_state(those)}" for name, those in by_name.items()]
    new = sum(not stage.found for stage in stages)
    if not new:
        return [*lines, ALL_THERE]
    time = rough_time(remaining(experiment, stages))
    if not stages[0].found:
        # What follows is looked up by the data's digests, which nobody knows before they are made.
        return [
            *lines,
            f"To do: up to {new} of {len(stages)} stages, {time}; those that new data leave as they are will be found.",
        ]
    return [*lines, f"To do: {new} of {len(stages)} stages, {time}."]


def _sweep_lines(sweep: Sweep, plans: list[list[PlannedStage]]) -> list[str]:
    """A line for each study. They run beside each other, and share a base where they say the same about it."""
    factors = ", ".join(f"{name} ({', '.join(levels)})" for name, levels in sweep.factors.items())
    lines = [f"{sweep.name}: {len(plans)} studies, varying {factors}"]
    left: list[float | None] = []
    bases: list[tuple[Model, int]] = []
    for study, stages in zip((member.study for member in sweep.members), plans, strict=True):
        new = [stage for stage in stages if not stage.found]
        lines.append(f"  {_summary(study)}; to do: {len(new)} of {len(stages)} stages")
        base = (study.model, study.seed)
        left.append(remaining(study, [stage for stage in stages if stage.stage_id.verb != "base" or base not in bases]))
        bases.append(base)
    if all(stage.found for stages in plans for stage in stages):
        return [*lines, ALL_THERE]
    known = [seconds for seconds in left if seconds is not None]
    return [*lines, f"To do: {rough_time(sum(known) if len(known) == len(left) else None)}."]


def _summary(study: Study) -> str:
    return (
        f"{study.name}: {', '.join(map(_asked, study.all_targets.values()))}, prior benchmarks: {len(study.prior)}, "
        f"arms: {len(study.arms)}, stages at a time: {stages_at_once(study)}"
    )


def _asked(target: Target) -> str:
    if isinstance(target, Jigsaw):
        return f"{target.train:,} puzzles of {target.grid[0]}×{target.grid[1]}"
    return f"{target.train:,} questions of {described(target)}"


def _find_stages(study: Study, root: Path, finder: StageFinder) -> None:
    ref = data.prepare_data(study, root, _refuse)
    finder.found.add(StageId("data"))
    base = base_stages(study, ref, finder)
    finder.found.add(StageId("evaluate"))
    followed: dict[Replicate, Runs] = {}
    for replicate in replicates(study):
        sampled = {arm: followed.get(Replicate(arm, replicate.number)) for arm in study.waits_for(replicate.arm)}
        there = {arm: runs for arm, runs in sampled.items() if runs is not None}
        if len(there) == len(sampled):
            with suppress(NotThere):
                followed[replicate] = arm_stages(study, replicate, base.start, there, finder)
                _find_measurements(study, followed[replicate], base.start, finder)


def _find_measurements(study: Study, runs: Runs, start: Start, finder: StageFinder) -> None:
    """A replicate's evaluations, influence and predictors, which do not wait for each other."""
    for run in runs:
        if run.kind == "train":
            with suppress(NotThere):
                evaluation_stages(study, run, start, finder)
                finder.found.add(StageId("evaluate", Position(run.arm, run.replicate, run.stage)))
    with suppress(NotThere):
        influence_stages(study, runs, start, finder)
    predictor_stages(study, runs, start.data, finder)


def _refuse(_job: MakeData, _into: Path) -> DataRef:
    raise NotThere


def _name(stage_id: StageId) -> str:
    verb, (arm, _, number) = stage_id
    if arm is None:
        return {"base": "base model", "evaluate": "base evaluation"}.get(verb, verb)
    parts = {"sample": "samples", "select": "selection", "influence": "influence", "ledger": "ledger"}
    parts |= {"evaluate": "evaluation", "predictors": "predictors"}
    return arm + (f" {number + 1}" if number else "") + (f": {parts[verb]}" if verb in parts else "")


def _state(stages: list[PlannedStage]) -> str:
    """Of a stage's replicates."""
    new = [stage for stage in stages if not stage.found]
    if not new:
        return "found"
    known = [stage.seconds for stage in new if stage.seconds is not None]
    times = f"{len(new)} × " if len(new) > 1 else ""
    return times + rough_time(max(known) if len(known) == len(new) else None)
