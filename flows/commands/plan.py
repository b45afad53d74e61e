"""What a study is going to do: which stages are there already, and about how long the others will take.

A stage's key is known when its inputs are, so stages are looked up along the walk that runs them, as far as they are
found. Times come from earlier runs of the same stage; without any, and only for the bundled model, from rules of thumb
taken on two CPU cores.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from flows.commands.estimate import Estimates, Place
from flows.graph import Runs, begin, follow, in_order, traced
from flows.jobs import sampled_source
from holdfast.benchmarks.targets.protocol import described
from holdfast.config.jobs import AnyJob, MakeData
from holdfast.config.methods import SFT
from holdfast.config.model import Model
from holdfast.config.refs import DataRef, FileRef
from holdfast.config.study import Study
from holdfast.config.sweep import Sweep
from holdfast.config.targets import Jigsaw, Target
from tasks import data, slots
from tasks.stage import Context, StageRun, file_of, find_stage

ALL_THERE = "Everything is there; only the report may be written again."


class Work(NamedTuple):
    """A stage as the plan tells it."""

    place: Place
    found: bool
    seconds: float | None
    """About what it will take; None where nobody knows, or where it is found."""


class NotThere(Exception):
    """A stage that has to run."""


class Finding:
    """Looks stages up and runs nothing."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.found: set[Place] = set()

    def run(self, job: AnyJob, arm: str | None = None, stage: int = 0) -> StageRun:
        run = find_stage(job, self.context, arm, stage)
        if run is None:
            raise NotThere
        self.found.add((job.verb, arm, stage))
        return run

    def keep(self, samples: StageRun) -> FileRef:
        return file_of(samples, "samples.parquet")


def plan(study: Study, root: Path) -> list[Work]:
    """Every stage in order. UserError where the data or the model cannot be used."""
    finding = Finding(Context(root=root, study=study, study_run=""))
    with suppress(NotThere):
        _look(study, root, finding)
    estimates = Estimates(study, root)
    return [
        Work(place, True, None) if place in finding.found else Work(place, False, estimates.seconds(place))
        for place in places(study)
    ]


def places(study: Study) -> list[Place]:
    """The stages of a study that its reader cares about."""
    common: list[Place] = [("data", None, 0), ("base", None, 0), ("evaluate", None, 0)]
    if study.model.path != "bundled":
        common.remove(("base", None, 0))
    arms: list[Place] = []
    for arm in in_order(study):
        for number, stage in enumerate(study.arms[arm]):
            arms += [("sample", arm, number)] if sampled_source(stage) else []
            arms += [("select", arm, number)] if isinstance(stage, SFT) and stage.select else []
            arms.append(("train", arm, number))
            arms += [("influence", arm, number)] if study.influence else []
    return [*common, *arms]


def remaining(study: Study, works: list[Work]) -> float | None:
    """About how long what is left will take, with as many stages at a time as this machine has room for."""
    left = {work.place: 0.0 if work.found else work.seconds for work in works}
    known = {place: seconds for place, seconds in left.items() if seconds is not None}
    if len(known) < len(left):
        return None
    chains: dict[str, float] = {}
    for arm in in_order(study):
        own = sum(seconds for place, seconds in known.items() if place[1] == arm)
        chains[arm] = own + max((chains[other] for other in study.sampled_arms(arm)), default=0.0)
    alone = sum(seconds for place, seconds in known.items() if place[1] is None)
    together = sum(seconds for place, seconds in known.items() if place[1] is not None)
    return alone + max(together / at_once(study), *chains.values())


def at_once(study: Study) -> int:
    """How many stages run at a time."""
    if study.compute.device != "cpu" and slots.gpus():
        return len(slots.gpus())
    return study.compute.parallel or max(1, slots.cores() // study.compute.threads)


def told(experiment: Study | Sweep, plans: list[list[Work]]) -> list[str]:
    """The plans of an experiment's studies in lines for a person."""
    if isinstance(experiment, Sweep):
        return _told_of_sweep(experiment, plans)
    works = plans[0]
    lines = [_summary(experiment)]
    lines += [f"  {_name(work.place):<24} {'found' if work.found else about(work.seconds)}" for work in works]
    new = sum(not work.found for work in works)
    if not new:
        return [*lines, ALL_THERE]
    return [*lines, f"To do: {new} of {len(works)} stages, {about(remaining(experiment, works))}."]


def _told_of_sweep(sweep: Sweep, plans: list[list[Work]]) -> list[str]:
    """A line for each study. They run beside each other, and share a base where they say the same about it."""
    factors = ", ".join(f"{name} ({', '.join(levels)})" for name, levels in sweep.factors.items())
    lines = [f"{sweep.name}: {len(plans)} studies, varying {factors}"]
    left: list[float | None] = []
    bases: list[tuple[Model, int]] = []
    for study, works in zip((member.study for member in sweep.members), plans, strict=True):
        new = [work for work in works if not work.found]
        lines.append(f"  {_summary(study)}; to do: {len(new)} of {len(works)} stages")
        base = (study.model, study.seed)
        left.append(remaining(study, [work for work in works if work.place[0] != "base" or base not in bases]))
        bases.append(base)
    if all(work.found for works in plans for work in works):
        return [*lines, ALL_THERE]
    known = [seconds for seconds in left if seconds is not None]
    return [*lines, f"To do: {about(sum(known) if len(known) == len(left) else None)}."]


def _summary(study: Study) -> str:
    return (
        f"{study.name}: {_asked(study.target)}, prior benchmarks: {len(study.prior)}, "
        f"arms: {len(study.arms)}, stages at a time: {at_once(study)}"
    )


def _asked(target: Target) -> str:
    if isinstance(target, Jigsaw):
        return f"{target.train:,} puzzles of {target.grid[0]}×{target.grid[1]}"
    return f"{target.train:,} questions of {described(target)}"


def about(seconds: float | None) -> str:
    """A time no more precise than an estimate is."""
    if seconds is None:
        return "time unknown before a first run"
    if seconds < 90:
        return f"about {max(5, 5 * round(seconds / 5))} s"
    if seconds < 5400:
        return f"about {round(seconds / 60)} min"
    return f"about {seconds / 3600:.1f} h"


def _look(study: Study, root: Path, finding: Finding) -> None:
    ref = data.prepare(study, root, _refuse)
    finding.found.add(("data", None, 0))
    _, start = begin(study, ref, finding)
    followed: dict[str, Runs] = {}
    for arm in in_order(study):
        if study.sampled_arms(arm) <= followed.keys():
            with suppress(NotThere):
                followed[arm] = follow(study, arm, start, followed, finding)
                traced(study, arm, followed[arm], finding)


def _refuse(_job: MakeData, _into: Path) -> DataRef:
    raise NotThere


def _name(place: Place) -> str:
    verb, arm, number = place
    if arm is None:
        return {"base": "base model", "evaluate": "base evaluation"}.get(verb, verb)
    part = {"sample": ": samples", "select": ": selection", "influence": ": influence"}.get(verb, "")
    return arm + (f" {number + 1}" if number else "") + part
