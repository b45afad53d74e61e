"""The study: versioned data, a base model, every arm, one report. Prefect orders it; stages run in tasks/.

Annotations are evaluated here: a Prefect runner cannot resolve a flow's postponed ones.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture, wait
from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner

from flows import certificate
from flows.budget import Unbegun, admission, deadline, only_budget, require_room
from flows.evaluation import metrics_by_step
from flows.graph import (
    Replicate,
    Runs,
    arm_order,
    arm_stages,
    base_stages,
    evaluation_stages,
    influence_stages,
    learns_by_grpo,
    predictor_stages,
)
from flows.jobs import Provenance, Start, check_job, compare_job, failure_reasons
from flows.room import require_disk
from flows.run_note import RunNote, write_run_note
from holdfast.config.base import Config
from holdfast.config.jobs import AnyJob, MakeData
from holdfast.config.refs import DataRef, FileRef, ModelRef
from holdfast.config.results import Evaluated, FinishedStudy
from holdfast.config.study import Study
from holdfast.errors import UserError, reason
from holdfast.models.base_ref import reference
from holdfast.models.text_base import require_sight
from tasks import data, flow_artifacts, parent_runs, progress, ray_nodes, slots, worker
from tasks.evaluations import known_units, log_evaluation
from tasks.recorded import COMPARED
from tasks.run_links import DIRECTORY, link_runs
from tasks.stage import COMMON, Context, Position, StageRun, find_stage, run_data_stage, run_record, run_stage
from tasks.stage_cache import code_digest
from tasks.tracking import RegistryFailed, open_store

STAGE_THREADS: Any = ThreadPoolTaskRunner(max_workers=256)
"""Threads that wait for stages; how many stages run at a time is for tasks/slots.py to say."""


HEAD_START = 1.0
"""Seconds by which an arm with GRPO asks for room before the others."""


class Outcome(NamedTuple):
    """The report of a study, and what is missing in it."""

    compared: StageRun
    failed: dict[str, Exception]
    """Arms that did not finish, and why."""

    @property
    def report(self) -> Path:
        return self.compared.path / "report.html"

    @property
    def summary(self) -> Path:
        return self.compared.path / "summary.json"

    @property
    def job(self) -> str:
        """What was compared, as JSON."""
        return (self.compared.path / "job.json").read_text()


class ArmsFailed(Exception):
    """Some arms failed; the report, where there is one, shows the others."""

    def __init__(self, failed: dict[str, Exception], outcome: Outcome | None) -> None:
        super().__init__(f"failed: {', '.join(failed)}")
        self.failed, self.outcome = failed, outcome


class MeasuredBase(Config):
    """A study whose base is there and evaluated."""

    runs: Runs
    start: Start
    evaluated: tuple[Evaluated, ...]


class Futures(NamedTuple):
    """Of every replicate: its trainings, their evaluations, their influence and what may predict forgetting."""

    trainings: dict[Replicate, PrefectFuture[Any]]
    evaluations: dict[Replicate, PrefectFuture[Any]]
    traces: dict[Replicate, PrefectFuture[Any]]
    predictors: dict[Replicate, PrefectFuture[Any]]


class StudyEnd(NamedTuple):
    """What a study came to, once nothing of it runs any more."""

    finished: FinishedStudy
    runs: Runs
    failed: dict[str, Exception]
    outcome: Outcome | None
    """None where no arm finished."""


class StageRunner:
    """The executor that finds a stage in the cache or runs it; samples become a new version of the data."""

    def __init__(self, context: Context, data: DataRef, settled: bool = False) -> None:
        self.context, self.data = context, data
        self.settled = settled
        """Whether what needs no data has been checked."""

    def check(self) -> StageRun:
        """Refuse what can be refused before time is spent."""
        return self.run(check_job(self.context.study, self.data, self.settled))

    def run(self, job: AnyJob, position: Position = COMMON) -> StageRun:
        version = data.version(self.context.root)
        context = self.context.model_copy(update={"data_version": version})
        return run_stage(job, context, position, admission(job, position, context))

    def known_units(self, models: Sequence[ModelRef]) -> dict[str, FileRef]:
        return known_units(open_store(self.context.root), models)

    def keep(self, samples: StageRun) -> FileRef:
        return data.add_samples(self.data, samples.path / "samples.parquet", samples.digest)


@flow(
    name="study",
    flow_run_name="{config.name}: {config.skills}, seed {config.seed}",
    task_runner=STAGE_THREADS,
    persist_result=False,
)
def study(config: Study, command: str = "", root: Path = Path()) -> Outcome:
    """Build the base, train every arm, measure what each forgot, and compare. Raises ArmsFailed when arms failed."""
    root, flow_id = root.resolve(), flow_run.id or ""
    with parent_runs.study_run(root, config, flow_id) as run_id, worker.children(), progress.display():
        context = Context(root=root, study=config, study_run=run_id, flow_run=flow_id, ends=deadline(config))
        flow_artifacts.link_run(config.name, root, run_id)
        require_base(config)
        require_room([config], root)
        runner = prepared(context)
        checked = runner.check()
        require_disk(config, checked.result.notes["needs"], root)
        base = measure_base(runner)
        end = finish_study(base, submit_arms(base, context), runner, command)
        if end.outcome is None or not only_budget(end.failed):
            raise ArmsFailed(end.failed, end.outcome)
        return end.outcome


@flow(name="data", flow_run_name="{config.name}: data", persist_result=False)
def dataset(config: Study, root: Path = Path(), accept: bool = False) -> str:
    """Only the data of a study; returns its version. With `accept`, what differs from data.dvc is a new version."""
    root, flow_id = root.resolve(), flow_run.id or ""
    with parent_runs.study_run(root, config, flow_id) as run_id, worker.children(), progress.display():
        study_data(Context(root=root, study=config, study_run=run_id, flow_run=flow_id), accept)
        parent_runs.set_data_version(root, run_id, data.version(root))
    return data.version(root)


def require_base(study: Study) -> None:
    """Refuse a base, or GPUs, that are not to be had, or a base blind to what it is asked, before its data is made."""
    if study.compute.runner == "ray":
        ray_nodes.require_cluster(study.compute)
    elif study.compute.device != "cpu":
        slots.require_gpus(study.compute.gpus)
    if not study.model.is_built:
        require_sight(study, reference(study.model))


def prepared(context: Context) -> StageRunner:
    """The executor of a study whose data is there; before data is read from elsewhere, what needs none is checked."""
    settled: list[StageRun] = []

    def settle() -> None:
        if context.study.reads_data:
            settled.append(run_stage(check_job(context.study), context))

    made = study_data(context, first=settle)
    return StageRunner(context, made, bool(settled))


def study_data(context: Context, accept: bool = False, first: Callable[[], None] = lambda: None) -> DataRef:
    """The study's data as data.dvc pins it; `first` is called before any is restored or made."""

    def generate(job: MakeData, into: Path) -> StageRun:
        return run_data_stage(job, context, into)

    return data.prepare_data(context.study, context.root, generate, accept, first)


def data_run(context: Context) -> Runs:
    """The record of how the data was made, if this store has it, and the files that it was made of are there."""
    with suppress(UserError):
        found = find_stage(data.data_job(context.study), context)
        return () if found is None else (found,)
    return ()


def measure_base(runner: StageRunner) -> MeasuredBase:
    """The base of a study, built or found, and evaluated."""
    return MeasuredBase(**base_stages(runner.context.study, runner.data, runner)._asdict())


def submit_arms(base: Any, context: Context) -> Futures:
    """Every replicate at the same time, as far as this machine has room. `base` may be a future of a MeasuredBase."""
    futures = Futures({}, {}, {}, {})
    for number in range(1, context.study.replicates + 1):
        submit_replicate(number, futures, base, context)
    return futures


def submit_replicate(number: int, futures: Futures, base: Any, context: Context) -> None:
    """One replicate of every arm, and what is measured of it."""
    config = context.study
    for arm in arm_order(config):
        replicate = Replicate(arm, number)
        others = {other: Replicate(other, number) for other in sorted(config.waits_for(arm))}
        sampled: dict[str, Any] = {other: futures.trainings[one] for other, one in others.items()}
        runs: Any = train_arm.submit(replicate, base, sampled, context)
        futures.trainings[replicate] = runs
        futures.evaluations[replicate] = evaluate_arm.submit(replicate, runs, base, context)
        if config.influence is not None:
            futures.traces[replicate] = trace_arm.submit(replicate, runs, base, context)
        if config.predictors is not None:
            futures.predictors[replicate] = predict_arm.submit(replicate, runs, base, context)
        if learns_by_grpo(config, arm) and not config.sweep:
            # Room on the machine goes to who asks first, and this arm takes longest, unless it is found.
            wait([runs], timeout=HEAD_START)


def await_arms(futures: Futures, base: MeasuredBase) -> tuple[Runs, tuple[Evaluated, ...], dict[str, Exception]]:
    """Wait for every replicate; one that failed leaves the others alone."""
    wait([future for part in futures for future in part.values()])
    runs: list[StageRun] = []
    found: list[Evaluated] = list(base.evaluated)
    failed: dict[str, Exception] = {}
    for replicate in futures.trainings:
        name = replicate.arm if replicate.number == 1 else f"{replicate.arm} r{replicate.number}"
        trained = _result(futures.trainings[replicate])
        if isinstance(trained, Exception):
            failed[name] = trained
            continue
        runs += trained
        scored = _result(futures.evaluations[replicate])
        if isinstance(scored, Exception):
            failed[f"evaluation of {name}"] = scored
        else:
            found += scored
        for what, further in (("influence", futures.traces), ("predictors", futures.predictors)):
            measured = _result(further[replicate]) if replicate in further else ()
            if isinstance(measured, Exception):
                failed[f"{what} of {name}"] = measured
            else:
                runs += measured
    return tuple(runs), tuple(found), failed


def _result(future: PrefectFuture[Any]) -> Any:
    # Prefect leaves a task pending for good when what it waits for failed.
    if future.state.is_pending():
        return Unbegun("what it builds on did not finish")
    return future.result(raise_on_failure=False)


@task(task_run_name="{replicate.arm} {replicate.number}", cache_policy=NO_CACHE, persist_result=False)
def train_arm(replicate: Replicate, base: MeasuredBase, sampled: Mapping[str, Runs], context: Context) -> Runs:
    """Train one replicate of an arm, stage after stage."""
    return arm_stages(context.study, replicate, base.start, sampled, StageRunner(context, base.start.data))


@task(task_run_name="evaluate {replicate.arm} {replicate.number}", cache_policy=NO_CACHE, persist_result=False)
def evaluate_arm(replicate: Replicate, runs: Runs, base: MeasuredBase, context: Context) -> tuple[Evaluated, ...]:
    """Evaluate what each of its stages kept; the metrics stand on the runs that trained."""
    runner, store = StageRunner(context, base.start.data), open_store(context.root)
    found: list[Evaluated] = []
    for run in runs:
        if run.kind == "train":
            units = evaluation_stages(context.study, run, base.start, runner)
            log_evaluation(store, run.run_id, metrics_by_step(base.evaluated, units, context.study.evaluation.pass_at))
            found += units
    return tuple(found)


@task(task_run_name="influence {replicate.arm} {replicate.number}", cache_policy=NO_CACHE, persist_result=False)
def trace_arm(replicate: Replicate, runs: Runs, base: MeasuredBase, context: Context) -> Runs:
    """Trace what a replicate forgot to its samples."""
    return influence_stages(context.study, runs, base.start, StageRunner(context, base.start.data))


@task(task_run_name="predictors {replicate.arm} {replicate.number}", cache_policy=NO_CACHE, persist_result=False)
def predict_arm(replicate: Replicate, runs: Runs, base: MeasuredBase, context: Context) -> Runs:
    """Measure what may predict what a replicate forgot."""
    return predictor_stages(context.study, runs, base.start.data, StageRunner(context, base.start.data))


def finish_study(base: MeasuredBase, futures: Futures, runner: StageRunner, command: str) -> StudyEnd:
    """Wait for the arms and compare those that finished."""
    context = runner.context
    trained, found, failed = await_arms(futures, base)
    # A ledger by which an arm chooses is also one of the study's own, where that asks for ledgers.
    runs = tuple({run.run_id: run for run in (*data_run(context), *base.runs, *trained)}.values())
    issued = certificate.certify(context.study, base.start.base, runner.data, runs)
    finished = FinishedStudy(
        study=context.study,
        data=runner.data,
        runs=tuple(map(run_record, runs)),
        evaluated=found,
        certificate=issued.digest,
    )
    if not any(run.kind == "train" for run in runs):
        return StudyEnd(finished, runs, failed, None)
    try:
        outcome = compare_studies(Compared(context.study.name, (finished,), failed), runner, command)
    except worker.StageFailed as error:
        return StudyEnd(finished, runs, failed | {"report": error}, None)
    files = certificate.file_digests(outcome.report, outcome.job, context.study)
    certificate.write(issued, runs, files, context.study_run, open_store(context.root))
    refused = set_aliases(outcome.summary, context)
    link_trainings(finished, context)
    told = RunNote((*runs, outcome.compared), failed, refused, issued.digest)
    write_run_note(told, context)
    log_arms(outcome.summary, context)
    link = open_store(context.root).link(context.study_run)
    progress.announce(f"{context.study.name}: report {outcome.report}, MLflow {link}")
    return StudyEnd(finished, runs, failed, outcome)


class Compared(NamedTuple):
    """What goes into one report."""

    name: str
    studies: tuple[FinishedStudy, ...]
    failed: Mapping[str, Exception] = MappingProxyType({})
    factors: Mapping[str, tuple[str, ...]] = MappingProxyType({})


def compare_studies(compared: Compared, runner: StageRunner, command: str) -> Outcome:
    """Compare what finished, and attach the report to the run of the study or sweep."""
    context, failed = runner.context, compared.failed
    version = data.version(context.root)
    provenance = Provenance(command=command, data_version=version, code=code_digest(), failed=failure_reasons(failed))
    run = runner.run(compare_job(compared.name, compared.studies, provenance, dict(compared.factors)))
    outcome = Outcome(run, dict(failed))
    parent_runs.set_data_version(context.root, context.study_run, version)
    parent_runs.attach(context.root, context.study_run, [outcome.report, outcome.summary])
    open_store(context.root).artifacts.text(context.study_run, outcome.job, COMPARED)
    flow_artifacts.publish_report(compared.name, context.root, context.study_run, outcome.summary, provenance.failed)
    return outcome


def link_trainings(finished: FinishedStudy, context: Context) -> None:
    """Its trainings can be read below runs/ without MLflow."""
    try:
        link_runs(context.root, finished)
    except OSError as error:
        progress.warn(f"{context.study.name}: no links below {DIRECTORY}/ ({reason(error)})")


def log_arms(summary: Path, context: Context) -> None:
    """Each arm's means stand on the study's run, so that the table of runs compares studies."""
    arms = json.loads(summary.read_text())["arms"]
    found = {
        f"arm/{arm}/{measure}": values[measure]["mean"]
        for arm, values in arms.items()
        for measure in ("score", "retention", "forgetting")
        if values.get(measure) and values[measure].get("mean") is not None
    }
    log_evaluation(open_store(context.root), context.study_run, {0: found})


def set_aliases(summary: Path, context: Context) -> dict[str, str]:
    """Point the registry's aliases at the best checkpoints; returns those that the registry refused, and why."""
    refused: dict[str, str] = {}
    store = open_store(context.root)
    # A run knows its own stage's steps, not those of the stages before.
    for alias, winner in json.loads(summary.read_text())["aliases"].items():
        try:
            store.models.register(context.study.name, alias, winner["run_id"], winner["stage_step"])
        except RegistryFailed as error:
            refused[alias] = str(error)
            progress.warn(f"{context.study.name}: the model registry did not take the alias {alias}: {error}")
    return refused
