"""Trace a past training's forgetting to its samples: the run is named, everything else is read from its record."""

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.runtime import flow_run

from flows.jobs import trace_job
from holdfast.config.jobs import Trace, Train
from holdfast.config.measurement import Influence
from holdfast.config.study import Study
from holdfast.errors import UserError
from tasks import parent_runs, progress, worker
from tasks.recorded import read_record
from tasks.stage import Context, Position, StageRun, run_stage
from tasks.stage_cache import intact_result
from tasks.tracking import open_store


@flow(name="influence", flow_run_name="influence {run_id}", persist_result=False)
def influence(run_id: str, settings: Influence, steps: tuple[int, ...] = (), root: Path = Path()) -> StageRun:
    """Trace one training at all its kept checkpoints, or at some of them."""
    root, flow_id = root.resolve(), flow_run.id or ""
    trained, study, version = recorded(run_id, root)
    # On this machine, which need not be the one with the study's GPUs or its cluster.
    study = study.model_copy(update={"compute": study.compute.model_copy(update={"runner": "here"})})
    job = trace_job(trained, settings)
    if steps:
        job = at_steps(job, steps)
    with parent_runs.study_run(root, study, flow_id) as parent, worker.children(), progress.display():
        context = Context(root=root, study=study, study_run=parent, flow_run=flow_id, data_version=version)
        return run_stage(job, context, Position(trained.arm, trained.replicate, trained.stage))


def recorded(run_id: str, root: Path) -> tuple[StageRun, Study, str]:
    """A finished training, the study that it belongs to, and the version of the data that it read.

    Raises:
        UserError: the run trained nothing, did not finish, its files are not those that were recorded, or another
            version of holdfast wrote them.
    """
    store = open_store(root)
    run = store.run(run_id)
    tags = run.data.tags
    if tags.get("holdfast.kind") != "train" or run.info.status != "FINISHED":
        raise UserError(
            f"{run_id}: a {tags.get('holdfast.kind')} run that is {run.info.status}; name a finished train run"
        )
    place = store.artifacts.of(run)
    result = intact_result(place)
    if result is None:
        raise UserError(f"{place}: files of this run are missing or changed; run its study again to make them anew")
    train = read_record(Train, place / "job.json", run)
    if not train.data.path.is_dir():
        raise UserError(f"{train.data.path}: this run's data is not there; `holdfast data FILE` makes or restores it")
    study = read_record(Study, place / "config.json", run)
    stage = StageRun(
        kind="train",
        arm=tags["holdfast.arm"],
        replicate=int(tags.get("holdfast.replicate") or 1),
        stage=int(tags["holdfast.stage"]),
        run_id=run.info.run_id,
        path=place,
        digest=tags["holdfast.stage_key"],
        found=True,
        seconds=result.seconds,
        result=result,
    )
    return stage, study, tags.get("holdfast.data", "")


def at_steps(job: Trace, steps: tuple[int, ...]) -> Trace:
    """The job for some of the kept checkpoints only.

    Raises:
        UserError: a step was not kept.
    """
    kept = [ref.step for ref in job.kept]
    unknown = sorted(set(steps) - set(kept))
    if unknown:
        raise UserError(f"step {unknown[0]} was not kept; choose among {', '.join(map(str, kept))}")
    places = [place for place, step in enumerate(kept) if step in steps]
    chosen: dict[str, Any] = {
        name: tuple(getattr(job, name)[place] for place in places) for name in ("kept", "moments") if getattr(job, name)
    }
    # Rates belong to the way between neighbouring checkpoints.
    return job.model_copy(update={**chosen, "rates": ()})
