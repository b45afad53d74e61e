"""What the store knows of a study that ended: its run, what it compared, its certificate and summary."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from holdfast.config.jobs import Compare
from holdfast.config.results import FinishedStudy, Result, RunRecord
from holdfast.errors import UserError
from tasks import certificate
from tasks.certificate import Certificate
from tasks.tracking import Store

COMPARED = "compare.json"
"""On the run of a study, beside its report: the job of the report, which names all that it compared."""
RUN_ID = re.compile(r"[0-9a-f]{4,32}")
Model = TypeVar("Model", bound=BaseModel)


class RecordedStudy(NamedTuple):
    """A study with a report."""

    run: Any
    """Of the study itself."""
    finished: FinishedStudy
    certificate: Certificate | None
    """None of a study that ended before there were certificates, or whose certificate is gone."""

    @property
    def name(self) -> str:
        return self.finished.study.name


def recorded_studies(name: str, store: Store) -> list[RecordedStudy]:
    """The latest study with a report by its name or run id; of a sweep, all of its studies.

    Raises:
        UserError: there is none, or another version of holdfast recorded it.
    """
    runs = store.named(name)
    if not runs and RUN_ID.fullmatch(name):
        runs = [active(store.run(name), store)]
    for run in runs:
        kind = run.data.tags.get("holdfast.kind")
        of = [run] if kind == "study" else list(_members(run, store)) if kind == "sweep" else []
        found = [study for one in of if (study := _recorded(one, store)) is not None]
        if found:
            return found
    raise UserError(
        f"{name}: no study of this name or run id has a report in {store.shown}; `holdfast study` makes one."
    )


def study_of_run(run: Any, store: Store) -> RecordedStudy:
    """The latest study with a report that a stage's run is part of. UserError where there is none."""
    name = run.data.tags.get("holdfast.study", "")
    for parent in store.named(name):
        if parent.data.tags.get("holdfast.kind") == "study":
            found = _recorded(parent, store)
            if found is not None and _has(found, run):
                return found
    raise UserError(f"{run.info.run_id}: no study with a report has this run; run its study again, which finds it.")


def stage_run(record: RunRecord, store: Store) -> Any | None:
    """The run of a stage; by its key where another store gave it another id. None where it is deleted."""
    return store.find(record.run_id) or next(
        (run for run in store.with_key(record.digest) if run.info.status == "FINISHED"), None
    )


def result_of(run: Any, store: Store) -> Result | None:
    """What a stage left; None where that is gone or cannot be read."""
    text = store.artifacts.read(run, "result.json")
    try:
        return None if text is None else Result.model_validate_json(text)
    except ValidationError:
        return None


def read_result(place: Path) -> Result:
    """What a stage left in a directory of this machine."""
    return Result.model_validate_json((place / "result.json").read_text())


def summary_of(study: RecordedStudy, store: Store) -> dict[str, Any]:
    """The numbers of a study's report. UserError where they are gone."""
    return json.loads(_text(study.run, "summary.json", store))


def config_of(study: RecordedStudy, store: Store) -> dict[str, Any]:
    """The resolved configuration as it was recorded. UserError where it is gone."""
    return json.loads(_text(study.run, "config.json", store))


def compared_by(run: Any, store: Store) -> Compare | None:
    """The job of a run's report; None where it has none. UserError where another version of holdfast wrote it."""
    file = store.artifacts.of(run) / COMPARED
    return read_record(Compare, file, run) if file.is_file() else None


def read_record(model: type[Model], file: Path, run: Any) -> Model:
    """A file of a run's artifacts. UserError where it is gone, damaged, or written by another version of holdfast."""
    if not file.is_file():
        raise UserError(f"{run.info.run_id}: its {file.name} is gone; run its study again, which writes it.")
    return _read(model, file.read_bytes(), file.name, run)


def _text(run: Any, name: str, store: Store) -> str:
    text = store.artifacts.read(run, name)
    if text is None:
        raise UserError(f"{run.info.run_id}: its artifact {name} is gone; run `holdfast study` again, which writes it.")
    return text


def _recorded(run: Any, store: Store) -> RecordedStudy | None:
    """None of a study without a report."""
    compared = store.artifacts.read(run, COMPARED)
    if compared is None:
        return None
    issued = store.artifacts.read(run, certificate.ARTIFACT)
    job = _read(Compare, compared, COMPARED, run)
    return RecordedStudy(
        run, job.studies[0], None if issued is None else _read(Certificate, issued, certificate.ARTIFACT, run)
    )


def _read(model: type[Model], text: str | bytes, name: str, run: Any) -> Model:
    try:
        return model.model_validate_json(text)
    except ValidationError:
        code = run.data.tags.get("holdfast.commit") or run.data.tags.get("holdfast.code", "")
        raise UserError(
            f"{run.info.run_id}: its {name} is damaged, or written by another version of holdfast (code {code}); "
            f"use that version, or run the study again."
        ) from None


def active(run: Any, store: Store) -> Any:
    if run.info.lifecycle_stage != "active":
        raise UserError(
            f"{run.info.run_id}: this run is deleted in {store.shown}; `mlflow runs restore --run-id` brings it back."
        )
    return run


def _members(sweep: Any, store: Store) -> Iterator[Any]:
    """The runs of a sweep's studies."""
    runs = store.search(f"tags.`mlflow.parentRunId` = '{sweep.info.run_id}' and tags.`holdfast.kind` = 'study'")
    yield from sorted(runs, key=lambda run: run.info.start_time)


def _has(study: RecordedStudy, run: Any) -> bool:
    """Whether a stage is among those of a study; evaluations are by whom they evaluate."""
    tags = run.data.tags
    if tags.get("holdfast.kind") == "evaluate":
        at = (
            tags.get("holdfast.arm") or None,
            int(tags.get("holdfast.replicate") or 0),
            int(tags.get("holdfast.stage") or 0),
        )
        return at in {(one.arm, one.replicate, one.stage) for one in study.finished.evaluated}
    return run.info.run_id in {one.run_id for one in study.finished.runs}
