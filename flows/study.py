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

from flows.graph import Runs, arm_order, arm_stages, base_stages, influence_stages, learns_by_grpo
from flows.jobs import Provenance, Start, check_job, compare_job, failure_reasons
from flows.run_note import write_run_note
from holdfast.config.base import Config
from holdfast.config.jobs import AnyJob, MakeData
from holdfast.config.refs import DataRef, FileRef
from holdfast.config.study import Study
from tasks import data, parent_runs, progress, worker
from tasks.stage import Context, StageRun, find_stage, run_data_stage, run_record, run_stage
from tasks.stage_cache import code_digest
from tasks.tracking import RegistryFailed, open_store

STAGE_THREADS: Any = ThreadPoolTaskRunner(max_workers=64)
"""Threads that wait for stages; how many stages run at a time is for tasks/slots.py to say."""


HEAD_START = 1.0
"""Seconds by which an arm with GRPO asks for room before the others."""


class Outcome(NamedTuple):
    """The report of a study, and what is missing in it."""

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


class MeasuredBase(Config):
    """The base of a study, with its evaluation."""

    runs: Runs
    start: Start


class ArmFutures(NamedTuple):
    """Futures of every arm's runs, and of its influence analyses."""

    arms: dict[str, PrefectFuture[Any]]
    traces: dict[str, PrefectFuture[Any]]


class StudyEnd(NamedTuple):
    """What a study came to, once nothing of it runs any more."""

    runs: Runs
    failed: dict[str, Exception]
    outcome: Outcome | None
    """None where no arm finished."""


class StageRunner:
    """The executor that finds a stage in the cache or runs it; samples become a new version of the data."""

    def __init__(self, context: Context, data: DataRef) -> None:
        self.context, self.data = context, data

    def run(self, job: AnyJob, arm: str | None = None, stage: int = 0) -> StageRun:
        version = data.version(self.context.root)
        return run_stage(job, self.context.model_copy(update={"data_version": version}), arm, stage)

    def keep(self, samples: StageRun) -> FileRef:
        return data.add_samples(self.data, samples.path / "samples.parquet", samples.digest)


@flow(name="study", flow_run_name="{config.name}", task_runner=STAGE_THREADS, persist_result=False)
def study(config: Study, command: str = "", root: Path = Path()) -> Outcome:
    """Build the base, train every arm, measure what each forgot, and compare. Raises ArmsFailed when arms failed."""
    root, flow_id = root.resolve(), flow_run.id or ""
    with parent_runs.study_run(root, config, flow_id) as run_id, worker.children(), progress.display():
        context = Context(root=root, study=config, study_run=run_id, flow_run=flow_id)
        progress.log(f"{config.name}: in MLflow, {open_store(root).link(run_id)}")
        runner = StageRunner(context, study_data(context))
        runner.run(check_job(config, runner.data))
        base = measure_base(runner)
        end = finish_study(base, submit_arms(base, context), runner, command)
        if end.failed or end.outcome is None:
            raise ArmsFailed(end.failed, end.outcome)
        return end.outcome


@flow(name="data", flow_run_name="{config.name} data", persist_result=False)
def dataset(config: Study, root: Path = Path(), accept: bool = False) -> str:
    """Only the data of a study; returns its version. With `accept`, what differs from data.dvc is a new version."""
    root, flow_id = root.resolve(), flow_run.id or ""
    with parent_runs.study_run(root, config, flow_id) as run_id, worker.children(), progress.display():
        study_data(Context(root=root, study=config, study_run=run_id, flow_run=flow_id), accept)
        parent_runs.set_data_version(root, run_id, data.version(root))
    return data.version(root)


def study_data(context: Context, accept: bool = False) -> DataRef:
    """The study's data as data.dvc pins it."""

    def generate(job: MakeData, into: Path) -> StageRun:
        return run_data_stage(job, context, into)

    return data.prepare_data(context.study, context.root, generate, accept)


def data_run(context: Context) -> Runs:
    """The record of how the data was made, if this store has it."""
    found = find_stage(data.data_job(context.study), context)
    return () if found is None else (found,)


def measure_base(runner: StageRunner) -> MeasuredBase:
    """The base of a study, built or found, and measured."""
    runs, start = base_stages(runner.context.study, runner.data, runner)
    return MeasuredBase(runs=runs, start=start)


def submit_arms(base: Any, context: Context) -> ArmFutures:
    """Every arm at the same time, as far as this machine has room. `base` may be a future of a MeasuredBase."""
    config = context.study
    arms: dict[str, PrefectFuture[Any]] = {}
    traces: dict[str, PrefectFuture[Any]] = {}
    for arm in arm_order(config):
        sampled: dict[str, Any] = {other: arms[other] for other in sorted(config.sampled_arms(arm))}
        arms[arm] = train_arm.submit(arm, base, sampled, context)
        if config.influence is not None:
            runs: Any = arms[arm]
            traces[arm] = trace_arm.submit(arm, runs, base, context)
        if learns_by_grpo(config, arm) and not config.sweep:
            # Room on the machine goes to who asks first, and this arm takes longest.
            time.sleep(HEAD_START)
    return ArmFutures(arms, traces)


def await_arms(futures: ArmFutures, config: Study) -> tuple[dict[str, Runs], dict[str, Exception]]:
    """Wait for every arm; one that failed leaves the others alone."""
    wait([*futures.arms.values(), *futures.traces.values()])
    results = {arm: _result(futures.arms[arm]) for arm in config.arms}
    failed = {arm: result for arm, result in results.items() if isinstance(result, Exception)}
    arms = {arm: runs for arm, runs in results.items() if arm not in failed}
    for arm in futures.traces.keys() & arms.keys():
        traced = _result(futures.traces[arm])
        if isinstance(traced, Exception):
            failed[f"influence of {arm}"] = traced
        else:
            arms[arm] = (*arms[arm], *traced)
    return arms, failed


def _result(future: PrefectFuture[Any]) -> Any:
    # Prefect leaves a task pending for good when what it waits for failed.
    if future.state.is_pending():
        return worker.StageFailed("what it builds on failed")
    return future.result(raise_on_failure=False)


@task(task_run_name="{arm}", cache_policy=NO_CACHE, persist_result=False)
def train_arm(arm: str, base: MeasuredBase, sampled: Mapping[str, Runs], context: Context) -> Runs:
    """Train one arm, stage after stage."""
    return arm_stages(context.study, arm, base.start, sampled, StageRunner(context, base.start.data))


@task(task_run_name="influence {arm}", cache_policy=NO_CACHE, persist_result=False)
def trace_arm(arm: str, runs: Runs, base: MeasuredBase, context: Context) -> Runs:
    """Trace what an arm forgot to its samples."""
    return influence_stages(context.study, arm, runs, StageRunner(context, base.start.data))


def finish_study(base: MeasuredBase, futures: ArmFutures, runner: StageRunner, command: str) -> StudyEnd:
    """Wait for the arms and compare those that finished."""
    context = runner.context
    arms, failed = await_arms(futures, context.study)
    runs = (*data_run(context), *base.runs, *(run for arm in arms.values() for run in arm))
    try:
        return StudyEnd(runs, failed, compare_arms(runs, failed, runner, command) if arms else None)
    except worker.StageFailed as error:
        return StudyEnd(runs, failed | {"report": error}, None)


def compare_arms(runs: Runs, failed: dict[str, Exception], runner: StageRunner, command: str) -> Outcome:
    """Compare what finished, and say on the study's run what was done and where it lies."""
    context = runner.context
    version = data.version(context.root)
    provenance = Provenance(command=command, data_version=version, code=code_digest(), failed=failure_reasons(failed))
    compared = runner.run(compare_job(context.study, runner.data, tuple(map(run_record, runs)), provenance))
    outcome = Outcome(context.study_run, compared.path / "report.html", compared.path / "summary.json", failed)
    parent_runs.set_data_version(context.root, context.study_run, version)
    parent_runs.attach(context.root, context.study_run, [outcome.report, outcome.summary])
    refused = set_aliases(outcome.summary, context)
    write_run_note((*runs, compared), failed, refused, context)
    progress.announce(
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
