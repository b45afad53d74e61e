"""A sweep: its studies side by side, each with a report of its own, and one report on all of them."""

from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture, wait
from prefect.runtime import flow_run

from flows.budget import deadline, only_budget, require_room
from flows.room import require_disk
from flows.study import (
    STAGE_THREADS,
    ArmsFailed,
    Compared,
    Futures,
    MeasuredBase,
    Outcome,
    StageRunner,
    StudyEnd,
    compare_studies,
    finish_study,
    measure_base,
    prepared,
    require_base,
    submit_replicate,
)
from holdfast.config.refs import DataRef
from holdfast.config.results import FinishedStudy
from holdfast.config.sweep import Member, Sweep
from tasks import flow_artifacts, parent_runs, progress, worker
from tasks.stage import Context


class SweptStudy(NamedTuple):
    """A study of the sweep while its arms run."""

    member: Member
    runner: StageRunner
    run: ExitStack
    """Ends its run in MLflow, as failed if it is left with an error."""
    base: PrefectFuture[Any]
    futures: Futures


@flow(name="sweep", flow_run_name="{config.name}: sweep", task_runner=STAGE_THREADS, persist_result=False)
def sweep(config: Sweep, command: str = "", root: Path = Path()) -> Outcome:
    """Run every study of a sweep and compare them. Raises ArmsFailed when arms failed.

    All data is there, and everything that can be refused has been, before the first study begins.
    """
    root, flow_id = root.resolve(), flow_run.id or ""
    with ExitStack() as stack:
        run_id = stack.enter_context(parent_runs.sweep_run(root, config, flow_id))
        flow_artifacts.link_run(config.name, root, run_id)
        stack.enter_context(worker.children())
        stack.enter_context(progress.display())
        require_room([member.study for member in config.members], root)
        ends = deadline(config.members[0].study)
        runs = [stack.enter_context(ExitStack()) for _ in config.members]
        contexts = [
            Context(
                root=root,
                study=member.study,
                study_run=run.enter_context(parent_runs.study_run(root, member.study, flow_id, run_id)),
                flow_run=flow_id,
                ends=ends,
            )
            for member, run in zip(config.members, runs, strict=True)
        ]
        runners, checks = [], []
        for context in contexts:
            require_base(context.study)
            runners.append(prepared(context))
            # Beside the making of the next one's data, which is one at a time.
            checks.append(check_study.submit(runners[-1].data, context, runners[-1].settled))
        for checked in checks:
            checked.result()
        bases = [base_of.submit(runner.data, runner.context) for runner in runners]
        swept = [
            SweptStudy(member, runner, run, base, Futures({}, {}, {}, {}))
            for member, runner, run, base in zip(config.members, runners, runs, bases, strict=True)
        ]
        _submit(swept)
        # What is compared belongs to no one study.
        whole = contexts[0].study.model_copy(update={"name": config.name, "sweep": ""})
        context = contexts[0].model_copy(update={"study": whole, "study_run": run_id})
        return _finish_sweep(config, swept, context, command)


@task(task_run_name="check {context.study.name}", cache_policy=NO_CACHE, persist_result=False)
def check_study(ref: DataRef, context: Context, settled: bool) -> None:
    """Refuse what can be refused before time is spent."""
    checked = StageRunner(context, ref, settled).check()
    require_disk(context.study, checked.result.notes["needs"], context.root)


@task(task_run_name="base of {context.study.name}", cache_policy=NO_CACHE, persist_result=False)
def base_of(ref: DataRef, context: Context) -> MeasuredBase:
    """Build, or find, and measure the base of a study."""
    return measure_base(StageRunner(context, ref))


def _submit(swept: list[SweptStudy]) -> None:
    """The first replicate of every study before the second of any, so that early results say something of all."""
    for number in range(1, max(one.member.study.replicates for one in swept) + 1):
        if number > 1:
            # Who has no base yet would ask for room after all others.
            wait([one.base for one in swept])
        for one in swept:
            if number <= one.member.study.replicates:
                submit_replicate(number, one.futures, one.base, one.runner.context)


def _finish_sweep(config: Sweep, swept: list[SweptStudy], context: Context, command: str) -> Outcome:
    """Wait for one study after the other; then compare those in which something was learned."""
    finished: list[FinishedStudy] = []
    failed: dict[str, Exception] = {}
    for one in swept:
        end = _finish_one(one, command)
        study = one.member.study
        failed |= {f"{study.name}: {arm}": error for arm, error in end.failed.items()}
        if any(run.kind == "train" for run in end.runs):
            finished.append(end.finished.model_copy(update={"levels": one.member.levels}))
        with suppress(ArmsFailed), one.run:
            if not only_budget(end.failed):
                raise ArmsFailed(end.failed, end.outcome)
    outcome = None
    if finished:
        runner = StageRunner(context, finished[0].data)
        outcome = compare_studies(Compared(config.name, tuple(finished), failed, config.factors), runner, command)
        progress.log(f"{config.name}: report {outcome.report}")
    if outcome is None or not only_budget(failed):
        raise ArmsFailed(failed, outcome)
    return outcome


def _finish_one(one: SweptStudy, command: str) -> StudyEnd:
    base = one.base.result(raise_on_failure=False)
    if isinstance(base, Exception):
        nothing = FinishedStudy(study=one.member.study, data=one.runner.data, runs=())
        return StudyEnd(nothing, (), {"base": base}, None)
    return finish_study(base, one.futures, one.runner, command)
