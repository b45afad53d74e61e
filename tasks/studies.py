"""The parent run of a study in MLflow, and what is said there about the study as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from holdfast.config import Study
from tasks import tracking
from tasks.memory import code_digest
from tasks.recording import leaves
from tasks.tracking import open_store


@contextmanager
def study_run(root: Path, study: Study, flow_run: str = "") -> Iterator[str]:
    """The parent run of one flow run; ends FINISHED, FAILED on an error, KILLED on an interrupt.

    Before it begins, runs that dead processes of this machine left RUNNING become KILLED.
    """
    store = open_store(root)
    store.reap()
    tags = {"holdfast.kind": "study", "holdfast.code": code_digest()[:12], "prefect.flow_run_id": flow_run}
    run_id = store.begin(study.name, study.name, tags)
    with tracking.ending(store, run_id):
        store.params(run_id, leaves(study.model_dump(mode="json")))
        store.text(run_id, study.model_dump_json(indent=1), "config.json")
        yield run_id


def set_data_version(root: Path, run_id: str, md5: str) -> None:
    """Tag a run with the DVC md5 of the data it used."""
    open_store(root).tag(run_id, {"holdfast.data": md5})


def attach(root: Path, run_id: str, files: Sequence[Path]) -> None:
    """Copy files (the report) to a run's artifacts."""
    for file in files:
        open_store(root).upload(run_id, file.parent, [file.name])
