"""The parent runs of studies and sweeps in MLflow, and what is said there about each as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from holdfast.config.study import Study
from holdfast.config.sweep import Sweep
from tasks import store_lock, tracking
from tasks.recording import flat_params
from tasks.redaction import refuse_secrets
from tasks.stage_cache import code_digest
from tasks.tracking import Store, open_store


@contextmanager
def study_run(root: Path, study: Study, flow_run: str = "", sweep_run: str = "") -> Iterator[str]:
    """The parent run of a study; below that of its sweep, if it has one."""
    above = {"mlflow.parentRunId": sweep_run} if sweep_run else {}
    tags = {"holdfast.kind": "study", "prefect.flow_run_id": flow_run, **above}
    with _parent(root, study, study.experiment, tags) as run_id:
        yield run_id


@contextmanager
def sweep_run(root: Path, sweep: Sweep, flow_run: str = "") -> Iterator[str]:
    """The run above those of a sweep's studies."""
    with _parent(root, sweep, sweep.name, {"holdfast.kind": "sweep", "prefect.flow_run_id": flow_run}) as run_id:
        yield run_id


@contextmanager
def comparison_run(root: Path, study: Study, flow_run: str = "") -> Iterator[str]:
    """The run above a comparison of what ran apart; no report of the study whose experiment it stands in."""
    tags = {"holdfast.kind": "compare", "prefect.flow_run_id": flow_run}
    with _parent(root, study, study.experiment, tags) as run_id:
        yield run_id


@contextmanager
def _parent(root: Path, config: Study | Sweep, experiment: str, tags: dict[str, str]) -> Iterator[str]:
    """A run for as long as the block lasts; ends FINISHED, FAILED on an error, KILLED on an interrupt.

    Before it begins, runs that dead processes of this machine left RUNNING become KILLED.
    """
    described = config.model_dump(mode="json", exclude={"members"})
    refuse_secrets(described)
    store = open_store(root)
    store.reap()
    with store_lock.in_use(root), _running(store, experiment, config.name, tags) as run_id:
        store.params(run_id, flat_params(described))
        store.artifacts.text(run_id, config.model_dump_json(indent=1), "config.json")
        yield run_id


@contextmanager
def _running(store: Store, experiment: str, name: str, tags: dict[str, str]) -> Iterator[str]:
    run_id = store.begin(experiment, name, {"holdfast.code": code_digest()[:12], **tags})
    with tracking.ending(store, run_id):
        yield run_id


def set_data_version(root: Path, run_id: str, md5: str) -> None:
    """Tag a run with the DVC md5 of the data it used."""
    open_store(root).tag(run_id, {"holdfast.data": md5})


def attach(root: Path, run_id: str, files: Sequence[Path]) -> None:
    """Copy files (the report) to a run's artifacts."""
    for file in files:
        open_store(root).artifacts.upload(run_id, file.parent, [file.name])
