"""Bring a study from an archive into this store and this repository, whole or not at all.

Runs are filled while they are RUNNING and have none of the tags by which studies and stages are found; those are given
at the end, the study's own run last. What a half import left is deleted by the next one of the same archive.
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from holdfast.config.refs import DataRef, file_digest
from holdfast.config.results import Result
from holdfast.errors import UserError, reason, writing
from tasks import archive, certificate, store_lock
from tasks.artifacts import local_artifacts
from tasks.certificate import Certificate
from tasks.data_transfer import add_files, check_listing, refuse_different
from tasks.exported_runs import IMPORT, REVEALING, ExportedRun, ExportedStudy, log_described
from tasks.portable_text import Local, is_text, renew_digests
from tasks.registry import aliases
from tasks.run_owner import owner_alive
from tasks.stage_cache import RESULT, code_digest, find_cached
from tasks.study_export import ABOVE, STUDY
from tasks.tracking import MlflowException, RegistryFailed, Store, open_store

ORIGIN = f"{IMPORT}.run"
"""Tag of an imported run: its id in the store that it comes from."""
WHOLE = f"{IMPORT}.whole"
"""Tag of the study's own run once everything is there."""


class Imported(NamedTuple):
    """What came of an archive."""

    study: str
    runs: int
    """New in the store; 0 where the study was there already."""
    told: tuple[str, ...]
    """What somebody should know."""


class Importing(NamedTuple):
    """An archive that is unpacked, on its way into a store."""

    store: Store
    root: Path
    place: Path
    """Where its members lie."""
    digest: str
    study: ExportedStudy


def import_study(file: Path, root: Path) -> Imported:
    """Import an archive. Of one that is there already, nothing is done.

    Raises:
        UserError: the archive is damaged or holds what no archive may hold, the data here differs from its data, or
            another import of it is at work.
    """
    root = root.resolve()
    opened = archive.open_archive(file)
    store = open_store(root)
    name = opened.manifest.study
    if any(WHOLE in run.data.tags for run in _of_archive(store, opened.digest)):
        return Imported(name, 0, ())
    place = root / "mlruns" / "imports" / opened.digest
    with _alone(file, place):
        try:
            archive.extract(file, place)
            given = Importing(store, root, place, opened.digest, _study(file, place, name))
            if store.with_ids([given.study.runs[-1].run_id]):
                # It is the store that it was exported from.
                return Imported(name, 0, ())
            _check(given)
            _discard(store, opened.digest)
            with _refusals(file), store_lock.in_use(root):
                return _import(given)
        finally:
            shutil.rmtree(place, ignore_errors=True)


def _of_archive(store: Store, digest: str) -> list[Any]:
    """The runs that imports of an archive made."""
    return store.search(f"tags.`{IMPORT}` = '{digest}'")


@contextmanager
def _refusals(file: Path) -> Iterator[None]:
    try:
        yield
    except MlflowException as error:
        raise UserError(f"{file}: MLflow does not take its runs ({reason(error)}); nothing was imported.") from error


@contextmanager
def _alone(file: Path, place: Path) -> Iterator[None]:
    with writing(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        lock = place.with_suffix(".lock").open("a")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{file}: another process imports it; let it finish.") from None
        # Of one that was killed.
        shutil.rmtree(place, ignore_errors=True)
        yield


def _study(file: Path, place: Path, name: str) -> ExportedStudy:
    try:
        study = ExportedStudy.model_validate_json((place / STUDY).read_bytes())
    except (FileNotFoundError, ValidationError) as error:
        raise UserError(
            f"{file}: {STUDY} is missing or not as `holdfast export` writes it; export it again."
        ) from error
    last = study.runs[-1]
    if study.name != name or last.name != name or last.tags.get("holdfast.kind") not in ABOVE:
        raise UserError(f"{file}: holds no run of the study {name}; export it again.")
    return study


def _check(given: Importing) -> None:
    for version, listing in _below(given.place / "versions"):
        check_listing(version, listing)
    refuse_different(given.root, dict(_below(given.place / "data")))
    for run in given.study.runs:
        _check_results(given.place / "runs" / run.run_id)
    ids = [run.run_id for run in given.study.runs]
    if len(set(ids)) < len(ids):
        raise UserError(f"{given.study.name}: two runs of the archive have one id; nothing was imported.")


def _check_results(place: Path) -> None:
    """Refuse a result.json that names files elsewhere."""
    file = place / "result.json"
    if not file.is_file():
        return
    try:
        result = Result.model_validate_json(file.read_text())
    except ValidationError as error:
        raise UserError(f"runs/{place.name}/result.json: is none; nothing was imported.") from error
    for name in (*result.files, *(one.path for one in result.checkpoints)):
        if not archive.allowed(f"runs/{place.name}/{name}"):
            raise UserError(f"runs/{place.name}/result.json: {name!r} lies elsewhere; nothing was imported.")


def _below(directory: Path) -> Iterator[tuple[str, Path]]:
    """Every file below a directory by its name there."""
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            yield path.relative_to(directory).as_posix(), path


def _discard(store: Store, digest: str) -> None:
    """Delete what an earlier import of this archive left half done. What it had shown already is found as it is."""
    for run in _of_archive(store, digest):
        if "holdfast.kind" in run.data.tags:
            continue
        if run.info.status == "RUNNING" and owner_alive(run.data.tags):
            raise UserError(f"{run.info.run_name}: another process imports it; let it finish.")
        discard(store, run)


def discard(store: Store, run: Any) -> None:
    """Delete a run whose import ended half done, with its files where they lie on this machine."""
    store.delete(run)
    place = local_artifacts(run)
    if place is not None:
        shutil.rmtree(place, ignore_errors=True)


def _import(given: Importing) -> Imported:
    store, runs = given.store, given.study.runs
    shown = {run.data.tags[ORIGIN]: run.info.run_id for run in _of_archive(store, given.digest)}
    ids: dict[str, str] = {}
    made: dict[str, ExportedRun] = {}
    with ExitStack() as undo:
        for run in runs:
            known = shown.get(run.run_id) or _same_stage(given, run)
            ids[run.run_id] = known or _begin(given, run)
            if known is None:
                made[ids[run.run_id]] = run
                undo.callback(_undo, store, ids[run.run_id])
        places = {run.info.run_id: store.artifacts.place(run) for run in store.with_ids(ids.values())}
        for run_id, run in made.items():
            _fill(given, run_id, run, Local(given.root, ids, places, store.experiment(run.experiment)))
        add_files(given.root, dict(_below(given.place / "data")), dict(_below(given.place / "versions")))
        for run_id, run in made.items():
            _show(store, run_id, run)
        undo.pop_all()
    told = [*_set_aliases(store, runs, ids), *_other_code(given.study)]
    store.tag(ids[runs[-1].run_id], {WHOLE: "yes"})
    return Imported(given.study.name, len(made), tuple(told))


def _same_stage(given: Importing, run: ExportedRun) -> str | None:
    """A run of the store with the same key and files. A report is another one, since it names runs."""
    key, kind = run.tags.get("holdfast.stage_key"), run.tags["holdfast.kind"]
    if key is None or kind == "compare":
        return None
    # The shards of a data stage are DVC's to keep.
    with_files = kind != "data" or (given.place / "runs" / run.run_id / "samples.parquet").is_file()
    found = find_cached(given.store, key, with_files)
    return found.run_id if found else None


def _begin(given: Importing, run: ExportedRun) -> str:
    """A run that nothing finds yet."""
    tags = {IMPORT: given.digest, ORIGIN: run.run_id}
    return given.store.begin(run.experiment, run.name, tags, run.started)


def _undo(store: Store, run_id: str) -> None:
    # A store that is gone keeps it; the next import of the archive deletes it.
    with suppress(Exception):
        run = store.run(run_id)
        if "holdfast.kind" not in run.data.tags:
            discard(store, run)


def _fill(given: Importing, run_id: str, run: ExportedRun, local: Local) -> None:
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
    _localise(place, local)
    if RESULT in tags:
        store.tag(run_id, {RESULT: file_digest(place / "result.json")})
    _renew_certificate(given, place, local)
    store.artifacts.upload(run_id, place, [name for name, _ in _below(place)])


def _localise(place: Path, local: Local) -> None:
    names = [name for name, _ in _below(place) if is_text(name)]
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


def _show(store: Store, run_id: str, run: ExportedRun) -> None:
    store.tag(run_id, {name: value for name, value in run.tags.items() if name in REVEALING})
    store.end(run_id, run.status, ended=run.ended)


def _set_aliases(store: Store, runs: tuple[ExportedRun, ...], ids: Mapping[str, str]) -> Iterator[str]:
    """Give checkpoints the names that they have elsewhere; a name that is taken here stays."""
    for run in runs:
        for alias in run.aliases:
            taken = aliases(store, alias.model).get(alias.alias)
            if taken is not None:
                if taken != (ids[run.run_id], alias.step):
                    yield f"The alias {alias.alias} of {alias.model} is taken here and stays as it is."
                continue
            try:
                store.models.register(alias.model, alias.alias, ids[run.run_id], alias.step)
            except RegistryFailed as error:
                yield f"The model registry did not take the alias {alias.alias} of {alias.model}: {error}."


def _other_code(study: ExportedStudy) -> Iterator[str]:
    if study.code != code_digest():
        yield "It was made by other sources of holdfast than those here: stages whose sources differ run again."
