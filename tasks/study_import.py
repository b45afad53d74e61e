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

from holdfast.config.results import Result
from holdfast.errors import UserError, reason, writing
from tasks import archive, store_lock
from tasks.artifacts import local_artifacts
from tasks.data_transfer import add_files, check_listing, refuse_different
from tasks.exported_runs import IMPORT, REVEALING, ExportedRun, ExportedStudy
from tasks.imported_runs import Importing, below, bring_back, fill, is_deleted
from tasks.portable_text import Local
from tasks.registry import aliases
from tasks.run_owner import owner_alive
from tasks.stage_cache import code_digest, find_cached
from tasks.study_export import ABOVE, STUDY
from tasks.tracking import MlflowException, RegistryFailed, Store, ViewType, open_store

ORIGIN = f"{IMPORT}.run"
"""Tag of an imported run: its id in the store that it comes from."""
WHOLE = f"{IMPORT}.whole"
"""Tag of the study's own run once everything is there."""


class Imported(NamedTuple):
    """What came of an archive."""

    study: str
    runs: int
    """New in the store; 0 where the study was there already."""
    told: tuple[str, ...] = ()
    """What somebody should know."""
    mended: int = 0
    """Runs of a study that was there already that had been deleted, or had lost files, and have them again."""


def import_study(file: Path, root: Path) -> Imported:
    """Import an archive. Of one that is there already, what runs have lost since is brought back.

    Raises:
        UserError: the archive is damaged or holds what no archive may hold, the data here differs from its data,
            another import of it is at work, or a run of a study that is there is gone for good.
    """
    root = root.resolve()
    opened = archive.open_archive(file)
    store = open_store(root)
    name = opened.manifest.study
    place = root / "mlruns" / "imports" / opened.digest
    with _alone(file, place):
        try:
            archive.extract(file, place)
            given = Importing(store, root, place, opened.digest, _study(file, place, name))
            _check_runs(given)
            with _refusals(file), store_lock.in_use(root):
                known = _known(given)
                if _is_there(given, known):
                    return _mend(file, given, known)
                _check_data(given)
                _discard(store, opened.digest)
                return _import(given)
        finally:
            shutil.rmtree(place, ignore_errors=True)


def _of_archive(store: Store, digest: str, view: int = ViewType.ACTIVE_ONLY) -> list[Any]:
    """The runs that imports of an archive made."""
    return store.search(f"tags.`{IMPORT}` = '{digest}'", view=view)


def _known(given: Importing) -> dict[str, Any]:
    """Runs that the archive's are here, deleted ones too: where it comes from they have their ids, elsewhere a tag."""
    own = {run.info.run_id: run for run in given.store.with_ids([run.run_id for run in given.study.runs], ViewType.ALL)}
    shown = (run for run in _of_archive(given.store, given.digest, ViewType.ALL) if "holdfast.kind" in run.data.tags)
    return own | {run.data.tags[ORIGIN]: run for run in sorted(shown, key=is_deleted, reverse=True)}


def _is_there(given: Importing, known: Mapping[str, Any]) -> bool:
    """Whether the study is in the store, as it was imported, or as it was before it was exported."""
    last = given.study.runs[-1].run_id
    top = known.get(last)
    return top is not None and not is_deleted(top) and (WHOLE in top.data.tags or top.info.run_id == last)


def _mend(file: Path, given: Importing, known: dict[str, Any]) -> Imported:
    """Bring back what the runs of a study that is there have lost: files that were removed, runs that were deleted."""
    store, runs = given.store, given.study.runs
    ids = {
        run.run_id: known[run.run_id].info.run_id if run.run_id in known else _same_stage(given, run) for run in runs
    }
    gone = [run for run in runs if ids[run.run_id] is None]
    if gone:
        raise UserError(
            f"{file}: {given.study.name} is there, but of its runs {gone[0].name} is gone for good; delete the run of "
            f"the study (`mlflow runs delete --run-id {ids[runs[-1].run_id]}`) and import again, which makes both anew."
        )
    found = {old: new for old, new in ids.items() if new is not None}
    places = {run.info.run_id: store.artifacts.place(run) for run in store.with_ids(found.values(), ViewType.ALL)}
    mended = [
        bring_back(given, known[run.run_id], run, Local(given.root, found, places, store.experiment(run.experiment)))
        for run in runs
        if run.run_id in known
    ]
    return Imported(given.study.name, 0, mended=sum(mended))


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


def _check_data(given: Importing) -> None:
    for version, listing in below(given.place / "versions"):
        check_listing(version, listing)
    refuse_different(given.root, dict(below(given.place / "data")))


def _check_runs(given: Importing) -> None:
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
    shown = {run.data.tags[ORIGIN]: run for run in _of_archive(store, given.digest)}
    ids: dict[str, str] = {}
    made: dict[str, ExportedRun] = {}
    with ExitStack() as undo:
        for run in runs:
            known = shown[run.run_id].info.run_id if run.run_id in shown else _same_stage(given, run)
            ids[run.run_id] = known or _begin(given, run)
            if known is None:
                made[ids[run.run_id]] = run
                undo.callback(_undo, store, ids[run.run_id])
        places = {run.info.run_id: store.artifacts.place(run) for run in store.with_ids(ids.values())}
        for run in runs:
            local = Local(given.root, ids, places, store.experiment(run.experiment))
            if ids[run.run_id] in made:
                fill(given, ids[run.run_id], run, local)
            elif run.run_id in shown:
                bring_back(given, shown[run.run_id], run, local)
        add_files(given.root, dict(below(given.place / "data")), dict(below(given.place / "versions")))
        for run in runs:
            # What an earlier import had shown, it may not have ended.
            if ids[run.run_id] in made or run.run_id in shown:
                _show(store, ids[run.run_id], run)
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
