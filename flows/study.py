"""The study: versioned data, a base model, every arm, one report. Prefect orders it; stages run in tasks/.

Annotations are evaluated here: a Prefect runner cannot resolve a flow's postponed ones.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture, wait
from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner

from flows.graph import Runs, begin, follow, in_order, reinforced, traced
from flows.jobs import Origin, Start, check_job, compare_job, reasons
from flows.run_note import describe
from holdfast.config.base import Config
from holdfast.config.jobs import AnyJob, MakeData
from holdfast.config.refs import DataRef, FileRef
from holdfast.config.study import Study
from tasks import data, progress, studies, worker
from tasks.cache import code_digest
from tasks.stage import Context, StageRun, find_stage, make_data, record, run_stage
from tasks.tracking import RegistryFailed, open_store

AT_ONCE: Any = ThreadPoolTaskRunner(max_workers=64)
"""Threads that wait for stages; how many stages run at a time is for tasks/slots.py to say."""


HEAD_START = 1.0
"""Seconds by which a reinforced arm asks for room before the others."""


class Outcome(NamedTuple):
    """What a study leaves for its reader."""

    run_id: str
    report: Path
    summary: Path
    failed: dict[str, Exception]
    """Arms that did not finish, and why."""


class ArmsFailed(Exception):
    """Some arms failed; the report, where there is one, shows the others."""

    def __init__(self, failed: dict[str, Exception], outcome: Outcome | None) -> None:
        super().__init__(f"failed: {', '.join(failed)}")
        self.failed, self.outcome = failed, outcome


class Begun(Config):
    """A study whose base is there and measured."""

    common: Runs
    start: Start


class Learning(NamedTuple):
    """Futures of every arm's runs, and of its influence analyses."""

    arms: dict[str, PrefectFuture[Any]]
    looks: dict[str, PrefectFuture[Any]]


class Ended(NamedTuple):
    """A study of which nothing runs any more."""

    runs: Runs
    failed: dict[str, Exception]
    outcome: Outcome | None
    """None where no arm finished."""


class Running:
    """Stages are found again or run; samples become a new version of the data."""

    def __init__(self, context: Context, data: DataRef) -> None:
        self.context, self.data = context, data

    def run(self, job: AnyJob, arm: str | None = None, stage: int = 0) -> StageRun:
        version = data.version(self.context.root)
        return run_stage(job, self.context.model_copy(update={"data_version": version}), arm, stage)

    def keep(self, samples: StageRun) -> FileRef:
        return data.add_samples(self.data, samples.path / "samples.parquet", samples.digest)


@flow(name="study", flow_run_name="{config.name}", task_runner=AT_ONCE, persist_result=False)
def study(config: Study, command: str = "", root: Path = Path()) -> Outcome:
    """Build the base, train every arm, measure what each forgot, and compare. Raises ArmsFailed when arms failed."""
    root, flow_id = root.resolve(), flow_run.id or ""
    with studies.study_run(root, config, flow_id) as run_id, worker.children(), progress.shown():
        context = Context(root=root, study=config, study_run=run_id, flow_run=flow_id)
        progress.log(f"{config.name}: in MLflow, {open_store(root).link(run_id)}")
        steps = Running(context, provide(context))
        steps.run(check_job(config, steps.data))
        begun = begun_with(steps)
        ended = conclude(begun, set_going(begun, context), steps, command)
        if ended.failed or ended.outcome is None:
            raise ArmsFailed(ended.failed, ended.outcome)
        return ended.outcome


@flow(name="data", flow_run_name="{config.name} data", persist_result=False)
def dataset(config: Study, root: Path = Path(), accept: bool = False) -> str:
    """Only the data of a study; returns its version. With `accept`, what differs from data.dvc is a new version."""
    root, flow_id = root.resolve(), flow_run.id or ""
    with studies.study_run(root, config, flow_id) as run_id, worker.children(), progress.shown():
        provide(Context(root=root, study=config, study_run=run_id, flow_run=flow_id), accept)
        studies.set_data_version(root, run_id, data.version(root))
    return data.version(root)


def provide(context: Context, accept: bool = False) -> DataRef:
    """The study's data as data.dvc pins it."""

    def generate(job: MakeData, into: Path) -> StageRun:
        return make_data(job, context, into)

    return data.prepare(context.study, context.root, generate, accept)


def made_data(context: Context) -> Runs:
    """The record of how the data was made, if this store has it."""
    found = find_stage(data.data_job(context.study), context)
    return () if found is None else (found,)


def begun_with(steps: Running) -> Begun:
    """The base of a study, built or found, and measured."""
    common, start = begin(steps.context.study, steps.data, steps)
    return Begun(common=common, start=start)


def set_going(begun: Any, context: Context) -> Learning:
    """Every arm at the same time, as far as this machine has room. `begun` may be a future of a Begun."""
    config = context.study
    arms: dict[str, PrefectFuture[Any]] = {}
    looks: dict[str, PrefectFuture[Any]] = {}
    for arm in in_order(config):
        sampled: dict[str, Any] = {other: arms[other] for other in sorted(config.sampled_arms(arm))}
        arms[arm] = learn.submit(arm, begun, sampled, context)
        if config.influence is not None:
            runs: Any = arms[arm]
            looks[arm] = influence.submit(arm, runs, begun, context)
        if reinforced(config, arm) and not config.sweep:
            # Room on the machine goes to who asks first, and this arm takes longest.
            time.sleep(HEAD_START)
    return Learning(arms, looks)


def learned(learning: Learning, config: Study) -> tuple[dict[str, Runs], dict[str, Exception]]:
    """Wait for every arm; one that failed leaves the others alone."""
    wait([*learning.arms.values(), *learning.looks.values()])
    ended = {arm: _result(learning.arms[arm]) for arm in config.arms}
    failed = {arm: result for arm, result in ended.items() if isinstance(result, Exception)}
    arms = {arm: runs for arm, runs in ended.items() if arm not in failed}
    for arm in learning.looks.keys() & arms.keys():
        seen = _result(learning.looks[arm])
        if isinstance(seen, Exception):
            failed[f"influence of {arm}"] = seen
        else:
            arms[arm] = (*arms[arm], *seen)
    return arms, failed


def _result(future: PrefectFuture[Any]) -> Any:
    # Prefect leaves a task pending for good when what it waits for failed.
    if future.state.is_pending():
        return worker.StageFailed("what it builds on failed")
    return future.result(raise_on_failure=False)


@task(task_run_name="{arm}", cache_policy=NO_CACHE, persist_result=False)
def learn(arm: str, begun: Begun, sampled: Mapping[str, Runs], context: Context) -> Runs:
    """Train one arm, stage after stage."""
    return follow(context.study, arm, begun.start, sampled, Running(context, begun.start.data))


@task(task_run_name="influence {arm}", cache_policy=NO_CACHE, persist_result=False)
def influence(arm: str, runs: Runs, begun: Begun, context: Context) -> Runs:
    """Trace what an arm forgot to its samples."""
    return traced(context.study, arm, runs, Running(context, begun.start.data))


def conclude(begun: Begun, learning: Learning, steps: Running, command: str) -> Ended:
    """Wait for the arms and compare those that finished."""
    context = steps.context
    arms, failed = learned(learning, context.study)
    runs = (*made_data(context), *begun.common, *(run for arm in arms.values() for run in arm))
    try:
        return Ended(runs, failed, concluded(runs, failed, steps, command) if arms else None)
    except worker.StageFailed as error:
        return Ended(runs, failed | {"report": error}, None)


def concluded(runs: Runs, failed: dict[str, Exception], steps: Running, command: str) -> Outcome:
    """Compare what finished, and say on the study's run what was done and where it lies."""
    context = steps.context
    version = data.version(context.root)
    origin = Origin(command=command, data_version=version, code=code_digest(), failed=reasons(failed))
    compared = steps.run(compare_job(context.study, steps.data, tuple(map(record, runs)), origin))
    outcome = Outcome(context.study_run, compared.path / "report.html", compared.path / "summary.json", failed)
    studies.set_data_version(context.root, context.study_run, version)
    studies.attach(context.root, context.study_run, [outcome.report, outcome.summary])
    refused = set_aliases(outcome.summary, context)
    describe((*runs, compared), failed, refused, context)
    progress.tell(
        f"{context.study.name}: report {outcome.report}, MLflow {open_store(context.root).link(context.study_run)}"
    )
    return outcome


def set_aliases(summary: Path, context: Context) -> dict[str, str]:
    """Point the registry's aliases at the best checkpoints; returns those that the registry refused, and why."""
    refused: dict[str, str] = {}
    for alias, winner in json.loads(summary.read_text())["aliases"].items():
        try:
            open_store(context.root).register(context.study.name, alias, winner["run_id"], winner["step"])
        except RegistryFailed as error:
            refused[alias] = str(error)
            progress.warn(f"{context.study.name}: the model registry did not take the alias {alias}: {error}")
    return refused
