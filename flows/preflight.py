"""Before a study: its data, the check, some steps and the influence of every stage on its longest samples, and a batch
of an evaluation's longest questions.

Annotations are evaluated here: a Prefect runner cannot resolve a flow's postponed ones.
"""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

from prefect import flow
from prefect.runtime import flow_run

from flows.evaluation import questions_of
from flows.jobs import Start, base_job, train_job
from flows.study import prepared, require_base
from holdfast.config.jobs import AnyJob, AskTrial, TraceTrial, Train, Trial
from holdfast.config.refs import DataRef, FileRef, ModelRef
from holdfast.config.results import Result
from holdfast.config.study import Study
from holdfast.errors import UserError
from holdfast.models.base_ref import read_as, reference
from tasks import parent_runs, progress, slots, worker
from tasks.stage import Context, find_stage, trained_model


class Preflight(NamedTuple):
    """What the check and the trials found."""

    checked: dict[str, Any]
    trials: dict[str, dict[str, Any]]
    """By stage, with `influence` where the study traces; a trial that did not fit has `failed`."""
    evaluation: dict[str, Any] = {}
    """Of all stages alike."""


@flow(name="preflight", flow_run_name="{config.name} preflight", persist_result=False)
def preflight(config: Study, root: Path = Path(), tried: bool = True) -> Preflight:
    """Check a study and, if `tried`, take some steps of every stage."""
    root, flow_id = root.resolve(), flow_run.id or ""
    with parent_runs.study_run(root, config, flow_id) as run_id, worker.children(), progress.display():
        context = Context(root=root, study=config, study_run=run_id, flow_run=flow_id)
        require_base(config)
        runner = prepared(context)
        checked = runner.check()
        base = _base(context) if tried else None
        trials = {} if base is None else _trials(context, runner.data, base)
        evaluation = {} if base is None else _asked(context, runner.data, base)
    return Preflight(checked.result.notes, trials, evaluation)


def _base(context: Context) -> ModelRef | None:
    """None where it is built and has not been."""
    study = context.study
    if not study.model.is_built:
        return reference(study.model)
    found = find_stage(base_job(study), context)
    return None if found is None else read_as(study.model, trained_model(found))


def _trials(context: Context, data: DataRef, base: ModelRef) -> dict[str, dict[str, Any]]:
    """Every stage is tried from the base, which its own start is as large as; stages that are alike, once."""
    study, found = context.study, {}
    start = Start(data=data, base=base, references=FileRef(path=Path(), digest=""))
    alike: dict[str, dict[str, Any]] = {}
    for arm, stages in study.trained.items():
        for number, stage in enumerate(stages):
            job = train_job(study, stage, base, start, study.seed)
            content = job.model_dump_json()
            if content not in alike:
                alike[content] = _trial(job, context)
            found[f"arms.{arm}.{number}"] = alike[content]
    return found


def _trial(train: Train, context: Context) -> dict[str, Any]:
    """Of a stage's steps and, where the study traces, of its influence."""
    about: dict[str, Any] = {"seed": train.seed, "threads": train.threads, "device": train.device, "train": train}
    found = _tried(Trial(**about), context)
    settings = context.study.influence
    if settings is not None:
        trace = TraceTrial(**about, data=train.data, influence=settings.model_copy(update={"ledger": None}))
        found["influence"] = _tried(trace, context)
    return found


def _asked(context: Context, data: DataRef, base: ModelRef) -> dict[str, Any]:
    """Of the base's evaluation, which every checkpoint is as large as."""
    questions = questions_of(context.study, data, base)
    about: dict[str, Any] = {"seed": context.study.seed, "threads": context.study.compute.threads}
    evaluation = questions.job((base,), tuple(questions.parts()))
    return _tried(AskTrial(**about, device=context.study.compute.device, evaluation=evaluation), context)


def _tried(job: AnyJob, context: Context) -> dict[str, Any]:
    """Its notes; the stage's directory is removed."""
    out = worker.work_directory(context.root) / f"trial-{context.study_run}"
    for place in (out, out.with_name(f"{out.name}.partial")):
        shutil.rmtree(place, ignore_errors=True)
    try:
        with slots.slot(job, context.study.compute.parallel, worker.stopping) as gpu:
            worker.run(job, out, lambda lines: None, gpu)
        return Result.model_validate_json((out / "result.json").read_text()).notes
    except UserError as error:
        return {"failed": str(error)}
    finally:
        for place in (out, out.with_name(f"{out.name}.partial")):
            shutil.rmtree(place, ignore_errors=True)
