"""Runs of an unpacked archive, filled in this store, and filled again with what they have lost there since."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from holdfast.config.refs import DataRef, file_digest
from holdfast.errors import UserError
from tasks import certificate
from tasks.artifacts import local_artifacts
from tasks.certificate import Certificate
from tasks.exported_runs import ExportedRun, ExportedStudy, log_described
from tasks.portable_text import Local, is_text, renew_digests
from tasks.stage_cache import RESULT, changed_files, recorded_result, retired_files
from tasks.tracking import Store

REMOVED = "holdfast.removed"
"""Tag of a run whose checkpoints or samples were removed: when, and why."""


class Importing(NamedTuple):
    """An archive that is unpacked, on its way into a store."""

    store: Store
    root: Path
    place: Path
    """Where its members lie."""
    digest: str
    study: ExportedStudy


def below(directory: Path) -> Iterator[tuple[str, Path]]:
    """Every file below a directory by its name there."""
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            yield path.relative_to(directory).as_posix(), path


def fill(given: Importing, run_id: str, run: ExportedRun, local: Local) -> None:
    """All of a run but what shows it."""
    store, place, tags = given.store, given.place / "runs" / run.run_id, dict(run.tags)
    above = tags.pop("mlflow.parentRunId", None)
    if above is not None and run is not given.study.runs[-1]:
        # An earlier attempt at the study was not exported.
        tags["mlflow.parentRunId"] = above if above in local.ids else given.study.runs[-1].run_id
    localised = {
        "tags": {name: local(value) for name, value in tags.items()},
        "params": {name: local(value) for name, value in run.params.items()},
    }
    log_described(store, run_id, run.model_copy(update=localised))
    for name, digest in run.data:
        store.dataset(run_id, DataRef(path=given.root / "data" / name, digest=""), digest)
    _upload(given, run_id, run, local, [name for name, _ in below(place)])


def _upload(given: Importing, run_id: str, run: ExportedRun, local: Local, names: list[str]) -> None:
    """Files of a run, with the places and ids that are here."""
    place = given.place / "runs" / run.run_id
    _localise(place, local)
    if RESULT in run.tags and "result.json" in names:
        given.store.tag(run_id, {RESULT: file_digest(place / "result.json")})
    _renew_certificate(given, place, local)
    given.store.artifacts.upload(run_id, place, names)


def _localise(place: Path, local: Local) -> None:
    names = [name for name, _ in below(place) if is_text(name)]
    for name in names:
        in_json = Path(name).suffix in (".json", ".jsonl")
        (place / name).write_text(local((place / name).read_text(errors="replace"), in_json))
    renew_digests(place, names)


def _renew_certificate(given: Importing, place: Path, local: Local) -> None:
    """Give a study's certificate the digests of what was rewritten. Its own digest is of none of that."""
    file = place / certificate.ARTIFACT
    if not file.is_file():
        return
    issued = Certificate.model_validate_json(file.read_text())
    results = dict(issued.results)
    for old, new in local.ids.items():
        # Of a stage that was here already, its own; of the others, which came before, what was unpacked.
        kept = [top / "result.json" for top in (local.artifacts[new], given.place / "runs" / old)]
        found = next((path for path in kept if path.is_file()), None)
        if new in results and found is not None:
            results[new] = file_digest(found)
    files = {name: file_digest(place / name) for name in issued.files if (place / name).is_file()}
    renewed = issued.model_copy(update={"results": results, "files": files})
    file.write_text(renewed.model_dump_json(indent=1))


def lost_files(run: Any, place: Path) -> list[str]:
    """Files of an archive's run, unpacked at `place`, that this store's has no more or not as recorded.

    Checkpoints that the study's own setting let go are none, and files on a server are not looked for.
    """
    here = local_artifacts(run)
    if here is None:
        return []
    result = recorded_result(here)
    changed, let_go = changed_files(here, result) if result is not None else [], retired_files(here)
    names = [name for name, _ in below(place) if name not in let_go]
    return [name for name in names if name in changed or not (here / name).is_file()]


def is_deleted(run: Any) -> bool:
    return bool(run.info.lifecycle_stage == "deleted")


def _refuse_others(given: Importing, found: Any, run: ExportedRun, names: list[str]) -> None:
    recorded = recorded_result(given.store.artifacts.place(found))
    files = recorded.files if recorded is not None else {}
    place = given.place / "runs" / run.run_id
    for name in names:
        # Texts name places and ids of their machine.
        if name in files and not is_text(name) and file_digest(place / name) != files[name]:
            raise UserError(f"{run.name}: {name} of the archive is not what the run recorded; it stays as it is.")


def bring_back(given: Importing, found: Any, run: ExportedRun, local: Local) -> bool:
    """Give a run of this store what it has lost of the archive's; whether it had lost anything.

    Raises:
        UserError: the archive's files are others than those that the run recorded.
    """
    store, run_id = given.store, found.info.run_id
    names = lost_files(found, given.place / "runs" / run.run_id)
    _refuse_others(given, found, run, names)
    if is_deleted(found):
        store.client.restore_run(run_id)
    elif not names:
        return False
    # Files last: until they are there, the next import sees that something is missing.
    log_described(store, run_id, run.model_copy(update={"tags": {}, "params": {}}))
    _upload(given, run_id, run, local, names)
    if REMOVED in found.data.tags:
        store.client.delete_tag(run_id, REMOVED)
    return True
