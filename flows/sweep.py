"""A sweep: its studies side by side, each with a report of its own, and one report on all of them."""

from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run

from flows.jobs import Origin, check_job, contrast_job, reasons
from flows.study import (
    AT_ONCE,
    ArmsFailed,
    Begun,
    Ended,
    Learning,
    Outcome,
    Running,
    begun_with,
    conclude,
    provide,
    set_going,
)
from holdfast.config.jobs import Told
from holdfast.config.refs import DataRef
from holdfast.config.sweep import Member, Sweep
from tasks import data, progress, studies, worker
from tasks.cache import code_digest
from tasks.stage import Context, record
from tasks.tracking import open_store


class Course(NamedTuple):
    """A study of the sweep on its way."""

    member: Member
    steps: Running
    run: ExitStack
    """Ends its run in MLflow, as failed if it is left with an error."""
    begun: PrefectFuture[Any]
    learning: Learning


@flow(name="sweep", flow_run_name="{config.name}", task_runner=AT_ONCE, persist_result=False)
def sweep(config: Sweep, command: str = "", root: Path = Path()) -> Outcome:
    """Run every study of a sweep and compare them. Raises ArmsFailed when arms failed.

    All data is there, and everything that can be refused has been, before the first study begins.
    """
    root, flow_id = root.resolve(), flow_run.id or ""
    with ExitStack() as stack:
        run_id = stack.enter_context(studies.sweep_run(root, config, flow_id))
        progress.log(f"{config.name}: in MLflow, {open_store(root).link(run_id)}")
        stack.enter_context(worker.children())
        stack.enter_context(progress.shown())
        runs = [stack.enter_context(ExitStack()) for _ in config.members]
        contexts = [
            Context(
                root=root,
                study=member.study,
                study_run=run.enter_context(studies.study_run(root, member.study, flow_id, run_id)),
                flow_run=flow_id,
            )
            for member, run in zip(config.members, runs, strict=True)
        ]
        members, checks = [], []
        for context in contexts:
            members.append(Running(context, provide(context)))
            # Beside the making of the next one's data, which is one at a time.
            checks.append(check.submit(members[-1].data, context))
        for checked in checks:
            checked.result()
        begun = [build.submit(steps.data, steps.context) for steps in members]
        courses = [
            Course(member, steps, run, start, set_going(start, steps.context))
            for member, steps, run, start in zip(config.members, members, runs, begun, strict=True)
        ]
        # What is compared belongs to no one study.
        whole = contexts[0].study.model_copy(update={"name": config.name, "sweep": ""})
        context = contexts[0].model_copy(update={"study": whole, "study_run": run_id})
        return _concluded(config, courses, context, command)


@task(task_run_name="check {context.study.name}", cache_policy=NO_CACHE, persist_result=False)
def check(ref: DataRef, context: Context) -> None:
    """Refuse what can be refused before time is spent."""
    Running(context, ref).run(check_job(context.study, ref))


@task(task_run_name="base of {context.study.name}", cache_policy=NO_CACHE, persist_result=False)
def build(ref: DataRef, context: Context) -> Begun:
    """Build, or find, and measure the base of a study."""
    return begun_with(Running(context, ref))


def _concluded(config: Sweep, courses: list[Course], context: Context, command: str) -> Outcome:
    """Wait for one study after the other; then compare those in which something was learned."""
    told: list[Told] = []
    failed: dict[str, Exception] = {}
    for course in courses:
        ended = _ended(course, command)
        study = course.member.study
        failed |= {f"{study.name}: {arm}": error for arm, error in ended.failed.items()}
        if any(run.kind == "train" for run in ended.runs):
            runs = tuple(map(record, ended.runs))
            told.append(Told(levels=course.member.levels, study=study, data=course.steps.data, runs=runs))
        with suppress(ArmsFailed), course.run:
            if ended.failed:
                raise ArmsFailed(ended.failed, ended.outcome)
    outcome = _compared(config, told, context, command, failed) if told else None
    if failed or outcome is None:
        raise ArmsFailed(failed, outcome)
    return outcome


def _ended(course: Course, command: str) -> Ended:
    begun = course.begun.result(raise_on_failure=False)
    if isinstance(begun, Exception):
        return Ended((), {"base": begun}, None)
    return conclude(begun, course.learning, course.steps, command)


def _compared(config: Sweep, told: list[Told], context: Context, command: str, failed: dict[str, Exception]) -> Outcome:
    version = data.version(context.root)
    origin = Origin(command=command, data_version=version, code=code_digest(), failed=reasons(failed))
    compared = Running(context, told[0].data).run(contrast_job(config, tuple(told), origin))
    outcome = Outcome(context.study_run, compared.path / "report.html", compared.path / "summary.json", failed)
    studies.set_data_version(context.root, context.study_run, origin.data_version)
    studies.attach(context.root, context.study_run, [outcome.report, outcome.summary])
    progress.log(f"{config.name}: report {outcome.report}")
    return outcome
