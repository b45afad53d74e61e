"""Compare what has been run: studies, or single trainings, named on the command line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.futures import PrefectFuture, wait
from prefect.runtime import flow_run

from flows.graph import needed_arms
from flows.jobs import predict_job
from flows.study import STAGE_THREADS, ArmsFailed, Compared, Outcome, StageRunner, compare_studies
from holdfast.config.measurement import Predictors
from holdfast.config.results import FinishedStudy
from holdfast.errors import UserError
from tasks import parent_runs, progress, worker
from tasks.recorded import compared_by
from tasks.stage import Context, Position, StageRun, recorded_run, run_record, run_stage
from tasks.tracking import Store, open_store


@flow(name="compare", flow_run_name="compare {names}", task_runner=STAGE_THREADS, persist_result=False)
def compare(
    names: tuple[str, ...], command: str = "", root: Path = Path(), predictors: Predictors | None = None
) -> Outcome:
    """One report on several studies and trainings, with `predictors` once what may predict forgetting is measured.

    Raises:
        UserError: one of them has no report, its files are gone, or they asked different questions.
        ArmsFailed: predictors could not be measured of some trainings; the report is there.
    """
    root, flow_id = root.resolve(), flow_run.id or ""
    studies = merged([study for name in names for study in finished(name, open_store(root))])
    if predictors is not None:
        require_predictable(studies)
    label = "-vs-".join(dict.fromkeys(_label(study, studies) for study in studies))
    first = studies[0].study
    config = first.model_copy(update={"name": f"compare-{label}", "sweep": first.experiment})
    with parent_runs.comparison_run(root, config, flow_id) as run_id, worker.children(), progress.display():
        context = Context(root=root, study=config, study_run=run_id, flow_run=flow_id)
        runner, failed = StageRunner(context, studies[0].data), dict[str, Exception]()
        if predictors is not None:
            measured = [measure_predictors(study, predictors, context) for study in studies]
            studies = tuple(study for study, _ in measured)
            failed = {name: why for _, reasons in measured for name, why in reasons.items()}
        outcome = compare_studies(Compared(label, studies, failed), runner, command)
        if failed:
            raise ArmsFailed(failed, outcome)
        return outcome


def require_predictable(studies: Sequence[FinishedStudy]) -> None:
    """UserError where predictors cannot be measured of a finished study."""
    for study in studies:
        if not study.data.path.is_dir():
            raise UserError(
                f"{study.data.path}: the data of {study.study.name} is not there; `holdfast data FILE` makes it"
            )
        if study.study.evaluation.drift == "sampled":
            raise UserError(
                f"{study.study.name}: predictors read the base beside every checkpoint, and its `evaluation.drift: "
                "sampled` is for where both do not fit; leave out --predictors"
            )


def measure_predictors(
    study: FinishedStudy, settings: Predictors, context: Context
) -> tuple[FinishedStudy, dict[str, Exception]]:
    """A finished study with what may predict forgetting, from its records alone, and where that failed."""
    own = context.model_copy(update={"study": study.study})
    futures: dict[Position, PrefectFuture[Any]] = {}
    for record in study.runs:
        place = Position(record.arm, record.replicate, record.stage)
        asked = {one.step for one in study.evaluated if (one.arm, one.replicate, one.stage) == place}
        if record.kind == "train" and asked:
            job = predict_job(study.study, settings, recorded_run(record), sorted(asked), study.data)
            futures[place] = run_stage.submit(job, own, place)
    wait(list(futures.values()))
    found = {place: future.result(raise_on_failure=False) for place, future in futures.items()}
    failed = {
        f"predictors of {study.study.name} {place.arm} r{place.replicate} {(place.stage or 0) + 1}": one
        for place, one in found.items()
        if isinstance(one, Exception)
    }
    others = [run for run in study.runs if run.kind != "predictors"]
    made = [run_record(one) for one in found.values() if isinstance(one, StageRun)]
    return study.model_copy(update={"runs": (*others, *made)}), failed


def finished(name: str, store: Store) -> tuple[FinishedStudy, ...]:
    """What the latest report of a study or sweep of that name compared, or the one of that run id.

    Of a training, given by its run id, that arm's replicate.
    """
    for run in store.named(name):
        if studies := _of_parent(run, store):
            return _whole(name, studies)
    run = store.run(name)
    if studies := _of_parent(run, store):
        return _whole(name, studies)
    tags = run.data.tags
    if tags.get("holdfast.kind") != "train" or run.info.status != "FINISHED":
        raise UserError(f"{name}: neither a study with a report nor a finished train run; name one of these")
    for parent in store.named(tags["holdfast.study"]):
        own = [_only(study, run.info.run_id) for study in _compared(parent, store)]
        studies = tuple(study for study in own if study.evaluated)
        if studies:
            return _whole(name, studies)
    raise UserError(f"{name}: no report of {tags['holdfast.study']} has this run; run the study again")


def merged(studies: Sequence[FinishedStudy]) -> tuple[FinishedStudy, ...]:
    """Trainings of one study are its arms again, so that they are compared with each other; nothing comes twice."""
    found: list[FinishedStudy] = []
    for one in studies:
        place = next((place for place, known in enumerate(found) if _are_one(known, one)), None)
        if place is None:
            found.append(one)
        else:
            found[place] = _together(found[place], one)
    return tuple(found)


def _label(study: FinishedStudy, studies: Sequence[FinishedStudy]) -> str:
    """Studies of one sweep are named by it together."""
    beside = [other for other in studies if other.study.experiment == study.study.experiment]
    return study.study.experiment if len(beside) > 1 else study.study.name


def _are_one(a: FinishedStudy, b: FinishedStudy) -> bool:
    """Whether two are parts of one study: a study that was changed and run again is another one."""
    mine, others = (
        {(run.arm, run.replicate, run.stage): run.run_id for run in one.runs if run.kind == "train"} for one in (a, b)
    )
    return (
        (a.study.name, a.study.sweep, a.data.digest) == (b.study.name, b.study.sweep, b.data.digest)
        and all(a.study.arms[arm] == b.study.arms[arm] for arm in a.study.arms.keys() & b.study.arms.keys())
        and all(mine[trained] == others[trained] for trained in mine.keys() & others.keys())
    )


def _together(known: FinishedStudy, one: FinishedStudy) -> FinishedStudy:
    return known.model_copy(
        update={
            "levels": known.levels or one.levels,
            "study": known.study.model_copy(update={"arms": {**known.study.arms, **one.study.arms}}),
            "runs": tuple(dict.fromkeys((*known.runs, *one.runs))),
            "evaluated": tuple(dict.fromkeys((*known.evaluated, *one.evaluated))),
        }
    )


def _of_parent(run: Any, store: Store) -> tuple[FinishedStudy, ...]:
    return _compared(run, store) if run.data.tags.get("holdfast.kind") in ("study", "sweep") else ()


def _compared(run: Any, store: Store) -> tuple[FinishedStudy, ...]:
    compared = compared_by(run, store)
    return () if compared is None else compared.studies


def _only(study: FinishedStudy, run_id: str) -> FinishedStudy:
    """The base, and the replicate that a run trained."""
    trained = {(run.arm, run.replicate) for run in study.runs if run.run_id == run_id}
    wanted = trained | {(None, 0)}
    if not trained:
        return study.model_copy(update={"evaluated": ()})
    # Those that it learns from are a part of what it is, and have no answers here.
    names = {needed for arm, _ in trained if arm for needed in needed_arms(study.study, arm)}
    arms = {arm: stages for arm, stages in study.study.arms.items() if arm in names}
    return study.model_copy(
        update={
            "study": study.study.model_copy(update={"arms": arms}),
            "runs": tuple(run for run in study.runs if (run.arm, run.replicate) in wanted),
            "evaluated": tuple(one for one in study.evaluated if (one.arm, one.replicate) in wanted),
        }
    )


def _whole(name: str, studies: Sequence[FinishedStudy]) -> tuple[FinishedStudy, ...]:
    gone = [one.file.path for study in studies for one in study.evaluated if not one.file.path.is_file()]
    if gone:
        raise UserError(f"{name}: {gone[0]} is gone, and {len(gone) - 1} more; run the study again to make them anew")
    return tuple(studies)
