"""A recorded study, or a part of it, run again on restored data in a repository and a store of its own.

This runs in a process of its own, of the recorded commit where that is another one, so what it is told is a small file
and what it answers another.

Annotations are evaluated here: a Prefect runner cannot resolve a flow's postponed ones.
"""

from pathlib import Path
from typing import Literal

from prefect import flow
from prefect.runtime import flow_run

from flows.certificate import code_digests
from flows.graph import Replicate, Runs, needed_arms
from flows.jobs import check_job
from flows.study import (
    STAGE_THREADS,
    ArmsFailed,
    MeasuredBase,
    StageRunner,
    evaluate_arm,
    finish_study,
    measure_base,
    submit_arms,
    trace_arm,
    train_arm,
)
from holdfast.config.base import Config
from holdfast.config.refs import DataRef
from holdfast.config.results import FinishedStudy
from holdfast.config.study import Study
from holdfast.errors import UserError
from tasks import parent_runs, progress, worker
from tasks.stage import Context, run_record
from tasks.stage_cache import lock_digest

JOB, ANSWER = "rerun.json", "reproduced.json"


class Part(Config):
    """What of a study is run: all of it, its base, or one training with all that it learns from."""

    scope: Literal["study", "base", "training"] = "study"
    arm: str = ""
    replicate: int = 1
    stage: int = 0
    """The last stage of the arm that is trained."""
    influence: bool = False
    """Also trace the training's forgetting."""


class Rerun(Config):
    """rerun.json."""

    study: Study
    data: DataRef
    part: Part = Part()
    code: dict[str, str]
    """Digests of the sources of every kind of stage that ran."""
    lock: str
    command: str = ""


class Reproduced(Config):
    """reproduced.json: what ran, and where the summary of a whole study is."""

    finished: FinishedStudy
    summary: Path | None = None


def differing_code(study: Study, code: dict[str, str], lock: str) -> list[str]:
    """The kinds of stages whose sources here are not those that ran, and the lock file; the report's do not count."""
    here = code_digests(study)
    kinds = [
        kind for kind in sorted(code.keys() | here.keys()) if kind != "compare" and code.get(kind) != here.get(kind)
    ]
    return [*kinds, *(["requirements.lock"] if lock != lock_digest() else [])]


def restricted(study: Study, part: Part) -> Study:
    """A study with the arms, and of the last one the stages, that a part needs."""
    if part.scope != "training":
        return study
    arms = {arm: study.arms[arm] for arm in needed_arms(study, part.arm)}
    return study.model_copy(update={"arms": {**arms, part.arm: study.arms[part.arm][: part.stage + 1]}})


@flow(name="reproduce", flow_run_name="reproduce {job.study.name}", task_runner=STAGE_THREADS, persist_result=False)
def rerun(job: Rerun, root: Path) -> Reproduced:
    """Run it below `root`, where nothing can be found that ran before.

    Raises:
        UserError: this is not the code that ran.
        ArmsFailed: arms failed.
    """
    differing = differing_code(job.study, job.code, job.lock)
    if differing:
        raise UserError(f"{job.study.name}: {', '.join(differing)} here is not what ran; nothing is run again.")
    study = restricted(job.study, job.part)
    flow_id = flow_run.id or ""
    with parent_runs.study_run(root, study, flow_id) as run_id, worker.children(), progress.display():
        context = Context(root=root, study=study, study_run=run_id, flow_run=flow_id)
        runner = StageRunner(context, job.data)
        runner.run(check_job(study, job.data))
        base = measure_base(runner)
        if job.part.scope != "study":
            return Reproduced(finished=_part(job.part, base, runner))
        end = finish_study(base, submit_arms(base, context), runner, job.command)
        if end.failed or end.outcome is None:
            raise ArmsFailed(end.failed, end.outcome)
        return Reproduced(finished=end.finished, summary=end.outcome.summary)


def _part(part: Part, base: MeasuredBase, runner: StageRunner) -> FinishedStudy:
    context = runner.context
    runs, found = base.runs, base.evaluated
    if part.scope == "training":
        replicate = Replicate(part.arm, part.replicate)
        trained: dict[str, Runs] = {}
        for arm in needed_arms(context.study, part.arm):
            sampled = {other: trained[other] for other in context.study.waits_for(arm)}
            trained[arm] = train_arm(Replicate(arm, part.replicate), base, sampled, context)
        runs = (*runs, *trained[part.arm])
        found = (*found, *evaluate_arm(replicate, trained[part.arm], base, context))
        if part.influence:
            runs = (*runs, *trace_arm(replicate, trained[part.arm], base, context))
    return FinishedStudy(study=context.study, data=runner.data, runs=tuple(map(run_record, runs)), evaluated=found)
