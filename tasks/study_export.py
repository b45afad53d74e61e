"""Write a study into one file: its runs, their artifacts, and the version of the data that they learned from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from pydantic import ValidationError

from holdfast.config.jobs import Compare
from holdfast.errors import UserError
from tasks import archive
from tasks.data_transfer import listing_file, pinned_files
from tasks.exported_runs import REVEALING, ExportedStudy, described
from tasks.portable_text import Neutral, is_text, refuse_spoiled, renew_digests, run_ids
from tasks.recorded import COMPARED, read_record
from tasks.registry import aliases
from tasks.stage_cache import code_digest, intact_result, recorded_result
from tasks.tracking import Store, ViewType, open_store

STUDY = "study.json"
NAMING = ("job.json", COMPARED, "stages.json")
"""Artifacts that name other runs."""
ABOVE = ("study", "sweep")


class Exported(NamedTuple):
    """What an archive got."""

    runs: int
    files: int
    bytes: int


def export_study(name: str, file: Path, root: Path) -> Exported:
    """Write the latest report of a study or a sweep, with all that it was made from, into an archive.

    Raises:
        UserError: there is no report, files of its runs or of its data are gone or changed, or the archive cannot be
            written.
    """
    archive.compression(file)
    if file.exists():
        raise UserError(f"{file}: is there already; remove it or name another file.")
    if not file.absolute().parent.is_dir():
        raise UserError(f"{file}: its directory is not there; make it first.")
    root, store = root.resolve(), open_store(root)
    study = reported(store, name)
    runs = [*_stages(store, study), *_studies(store, study), study]
    artifacts = {run.info.run_id: _whole(store, run) for run in runs}
    with TemporaryDirectory(prefix="holdfast-") as place:
        neutral = Neutral(root, artifacts)
        files = dict(_run_files(artifacts, neutral, Path(place)))
        files |= _data_files(root, study, artifacts[study.info.run_id])
        (Path(place) / STUDY).write_text(_neutral(_described(store, runs, study.info.run_name), neutral))
        archive.write(file, name, {STUDY: Path(place) / STUDY, **files})
    return Exported(len(runs), len(files), file.stat().st_size)


def reported(store: Store, name: str) -> Any:
    """The run of the latest report of a study or a sweep. UserError where there is none."""
    for run in store.named(name):
        over = run.data.tags.get("holdfast.kind") in ABOVE and run.info.status != "RUNNING"
        if over and (store.artifacts.of(run) / COMPARED).is_file():
            return run
    raise UserError(
        f"{name}: no study or sweep of this name has a report in {store.shown}; make one with `holdfast study FILE`."
    )


def referred(store: Store, roots: Iterable[Any]) -> dict[str, Any]:
    """Runs that these name, directly or through others, deleted ones too: what a report, and all of that, came from."""
    found: dict[str, Any] = {}
    waiting = {run.info.run_id: run for run in roots}
    looked_at: set[str] = set(waiting)
    while waiting:
        named = run_ids(text for run in waiting.values() for text in _naming(store, run)) - looked_at
        looked_at |= named
        waiting = {run.info.run_id: run for run in store.with_ids(named, ViewType.ALL)}
        found |= waiting
    return found


def _naming(store: Store, run: Any) -> Iterator[str]:
    place = store.artifacts.of(run)
    for name in NAMING:
        if (place / name).is_file():
            # A damaged one names other runs all the same.
            yield (place / name).read_text(errors="replace")


def _studies(store: Store, study: Any) -> list[Any]:
    """The runs of a sweep's studies."""
    return [run for run in store.children(study.info.run_id) if run.data.tags.get("holdfast.kind") == "study"]


def _stages(store: Store, study: Any) -> list[Any]:
    """The finished stages of a study, and its check, which nothing names."""
    parents = [study, *_studies(store, study)]
    named = [run for parent in parents for run in store.children(parent.info.run_id)]
    for parent in parents:
        query = f"tags.`holdfast.kind` = 'check' and tags.`holdfast.study` = '{parent.info.run_name}'"
        named += store.search(f"{query} and attributes.status = 'FINISHED'")[:1]
    finished = {run.info.run_id: run for run in named if _is_stage(run)}
    found = finished | referred(store, [*parents, *finished.values()])
    return [run for run in found.values() if _is_stage(run)]


def _is_stage(run: Any) -> bool:
    there = run.info.status == "FINISHED" and run.info.lifecycle_stage == "active"
    return there and "holdfast.stage_key" in run.data.tags


def _whole(store: Store, run: Any) -> Path:
    """The directory of a run's artifacts, all of which are there."""
    place = store.artifacts.whole(run)
    kind = run.data.tags["holdfast.kind"]
    if kind in ABOVE:
        return place
    # The shards of a data stage are DVC's to keep.
    with_files = not (kind == "data" and not (place / "samples.parquet").is_file())
    for again in (False, True):
        place = store.artifacts.whole(run, again)
        if (intact_result(place) if with_files else recorded_result(place)) is not None:
            return place
    raise UserError(
        f"{place}: files of the run {run.info.run_name} are gone or changed; run its study again to make them anew."
    )


def _run_files(artifacts: dict[str, Path], neutral: Neutral, work: Path) -> Iterator[tuple[str, Path]]:
    """By its member's name every artifact; of text a copy that means the same elsewhere."""
    for run_id, place in artifacts.items():
        names = sorted(path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file())
        texts = [name for name in names if is_text(name)]
        copy = work / run_id
        for name in texts:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_text(neutral((place / name).read_text(errors="replace"), name))
        renew_digests(copy, [name for name in texts if (copy / name).read_bytes() != (place / name).read_bytes()])
        for name in names:
            yield f"runs/{run_id}/{name}", (copy if name in texts else place) / name


def _data_files(root: Path, study: Any, place: Path) -> dict[str, Path]:
    """By its member's name every file of the data that a report's studies read, and the list of their version."""
    compared = read_record(Compare, place / COMPARED, study)
    version = study.data.tags.get("holdfast.data", "")
    names = {one.data.path.name for one in compared.studies}
    return {
        **{f"data/{name}": path for name, path in pinned_files(root, version, names).items()},
        f"versions/{version}": listing_file(root, version),
    }


def _described(store: Store, runs: list[Any], name: str) -> ExportedStudy:
    names = {run.info.run_name for run in runs if run.data.tags["holdfast.kind"] in ABOVE}
    named = {model: aliases(store, model) for model in sorted(names)}
    return ExportedStudy(name=name, code=code_digest(), runs=tuple(described(store, run, named) for run in runs))


def _neutral(study: ExportedStudy, neutral: Neutral) -> str:
    """The description for the archive, read again as an import does it. UserError where that finds another study."""
    content = study.model_dump_json(indent=1)
    text = neutral(content, STUDY)
    try:
        again = _identity(ExportedStudy.model_validate_json(text))
    except ValidationError:
        again = []
    if again != _identity(study):
        refuse_spoiled(content, STUDY)
    return text


def _identity(study: ExportedStudy) -> list[str]:
    """All by which runs are found and understood: not the other tags, nor parameters, which may name places."""
    shown = [{name: value for name, value in run.tags.items() if name in REVEALING} for run in study.runs]
    return [
        study.name,
        *(
            run.model_copy(update={"tags": tags, "params": {}}).model_dump_json()
            for run, tags in zip(study.runs, shown, strict=True)
        ),
    ]
