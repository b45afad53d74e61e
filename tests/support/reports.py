"""A study's run with a report, made of cheap stages: for what is done with a study once it is there."""

from pathlib import Path

from holdfast.config.jobs import Compare
from holdfast.config.refs import DataRef
from holdfast.config.results import FinishedStudy
from holdfast.config.study import Study
from tasks import data_version, parent_runs
from tasks.recorded import COMPARED
from tasks.stage import Context, StageRun, run_record
from tasks.tracking import open_store


def with_data(root: Path, name: str = "study-0123abcd", content: bytes = b"questions") -> DataRef:
    """A file of data, versioned."""
    place = root / "data" / name
    place.mkdir(parents=True)
    (place / "target-train.parquet").write_bytes(content)
    data_version.record(root, place.iterdir())
    return DataRef(path=place, digest="d")


def report(root: Path, study: Study, runs: list[StageRun], data: DataRef) -> str:
    """A finished run of a study whose report compares these stages; returns its id."""
    with parent_runs.study_run(root, study) as run_id:
        finished = FinishedStudy(study=study, data=data, runs=tuple(map(run_record, runs)))
        job = Compare(name=study.name, studies=(finished,), command="", data_version="")
        store = open_store(root)
        store.artifacts.text(run_id, job.model_dump_json(indent=1), COMPARED)
        page = f"<a href='#/experiments/1/runs/{runs[0].run_id}'>{root}</a>" if runs else ""
        store.artifacts.text(run_id, page, "report.html")
        parent_runs.set_data_version(root, run_id, data_version.version(root))
    return run_id


def stage_of(context: Context, study_run: str) -> Context:
    """The context of the stages of another run of the study."""
    return context.model_copy(update={"study_run": study_run})
