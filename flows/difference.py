"""How what ran again differs from what was recorded: metrics beside their intervals, files by their bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from flows.reproduce import DONE, Target
from flows.rerun import ANSWER, Part, Reproduced, restricted
from holdfast.analysis.reproduction import Difference, differences
from holdfast.analysis.study import analyse
from holdfast.analysis.summary import summary
from holdfast.config.jobs import Compare
from holdfast.config.refs import FileRef
from holdfast.config.results import Evaluated, FinishedStudy, RunRecord
from holdfast.errors import UserError
from holdfast.evaluation.records import measured, read_records
from holdfast.journal import METRICS
from tasks import data_version, evaluations, recorded
from tasks.data import is_sample
from tasks.tracking import Store

OF_A_RUN = ("job.json", METRICS)
"""Files with places and times, which are each run's own."""


class Bytes(NamedTuple):
    """Files of one kind, recorded and again."""

    what: str
    files: int
    differing: tuple[str, ...]


class Comparison(NamedTuple):
    """How what ran again differs from what was recorded."""

    metrics: list[Difference]
    bytes: list[Bytes]
    varying: tuple[str, ...]
    """What stages said of operations that have no deterministic kernel."""
    certificate: str
    """Of the new run; empty where only a part of a study ran."""

    @property
    def within(self) -> bool:
        """Whether every metric lies in its interval."""
        return all(one.within for one in self.metrics)


def compared(target: Target, store: Store, place: Path) -> Comparison:
    """What ran at `place` beside what was recorded. UserError where the record's files are gone."""
    again = Reproduced.model_validate_json((place / ANSWER).read_text())
    recorded_numbers, new_numbers = _summaries(target, again, store)
    found = Comparison(
        differences(recorded_numbers, new_numbers),
        [_data(target, place), *_stages(target, again, store), _records(target, again)],
        _varying(again),
        again.finished.certificate,
    )
    rows = [{**one._asdict(), "within": one.within} for one in found.metrics]
    content = {"within": found.within, "metrics": rows, "bytes": [one._asdict() for one in found.bytes]}
    (place / DONE).write_text(json.dumps(content, indent=1))
    return found


def _summaries(target: Target, again: Reproduced, store: Store) -> tuple[dict[str, Any], dict[str, Any]]:
    """The contents of two summaries. Of a single training they are computed, from its records alone."""
    if again.summary is not None:
        return recorded.summary_of(target.study, store), json.loads(again.summary.read_text())
    if target.part.scope == "base":
        records = [row for one in _of_base(again.finished) for row in read_records(one.file.path)]
        before, now = recorded.summary_of(target.study, store)["base"], measured(records)
        common = [name for name in before["metrics"] if name in now]
        before = before | {"metrics": {name: before["metrics"][name] for name in common}}
        return {"base": before}, {"base": {"metrics": {name: now[name] for name in common}}}
    before = _located(_only(target.study.finished, target.part), target, store)
    return _summary(before), _summary(_only(again.finished, target.part))


def _of_base(finished: FinishedStudy) -> list[Evaluated]:
    return [one for one in finished.evaluated if one.arm is None and one.kind == "records"]


def _summary(finished: FinishedStudy) -> dict[str, Any]:
    job = Compare(name=finished.study.name, studies=(finished,), command="", data_version="")
    return summary(analyse(job))


def _only(finished: FinishedStudy, part: Part) -> FinishedStudy:
    """The base and one training."""

    def is_wanted(one: RunRecord | Evaluated) -> bool:
        return one.arm is None or (one.arm == part.arm and one.replicate == part.replicate and one.stage <= part.stage)

    return finished.model_copy(
        update={
            "study": restricted(finished.study, part),
            "runs": tuple(run for run in finished.runs if is_wanted(run) and run.kind == "train"),
            "evaluated": tuple(one for one in finished.evaluated if is_wanted(one)),
        }
    )


def _located(finished: FinishedStudy, target: Target, store: Store) -> FinishedStudy:
    """With the places that runs and records have for this machine."""
    runs, models = [], [target.certificate.parts.base]
    for record in finished.runs:
        run = recorded.stage_run(record, store)
        result = None if run is None else recorded.result_of(run, store)
        if run is None or result is None:
            raise UserError(f"{record.run_id}: this run or its result.json is gone; see `holdfast verify`.")
        models += [checkpoint.digest for checkpoint in result.checkpoints]
        runs.append(record.model_copy(update={"path": str(store.artifacts.of(run))}))
    places: dict[str, Path] = {}
    for run in evaluations.runs_about(store, models):
        found = recorded.result_of(run, store)
        places |= {digest: store.artifacts.of(run) / name for name, digest in (found.files if found else {}).items()}
    gone = [one.file.path for one in finished.evaluated if not places.get(one.file.digest, Path()).is_file()]
    if gone:
        raise UserError(f"{gone[0]}: is gone, and {len(gone) - 1} more; see `holdfast verify {target.study.name}`.")
    evaluated = [
        one.model_copy(update={"file": FileRef(path=places[one.file.digest], digest=one.file.digest)})
        for one in finished.evaluated
    ]
    return finished.model_copy(update={"runs": tuple(runs), "evaluated": tuple(evaluated)})


def _data(target: Target, place: Path) -> Bytes:
    """The restored shards, by DVC's md5."""
    before = {name: md5 for name, md5 in target.certificate.parts.data.items() if not is_sample(name)}
    again = data_version.mended_listing(place)
    return Bytes("data", len(before), tuple(name for name, md5 in before.items() if again.get(name) != md5))


def _stages(target: Target, again: Reproduced, store: Store) -> list[Bytes]:
    """Files of every kind of stage that ran again, by sha256."""
    ran = {_position(record): record for record in again.finished.runs}
    found: dict[str, Bytes] = {}
    for record in target.study.finished.runs:
        other = ran.get(_position(record))
        if other is None or record.kind == "data":
            continue
        run = recorded.stage_run(record, store)
        before = recorded.result_of(run, store) if run is not None else None
        now = recorded.read_result(Path(other.path))
        files = {"result.json": ""} if before is None else before.files
        what = {"train": "checkpoints", "sample": "samples", "select": "samples"}.get(record.kind, record.kind)
        wanted = {
            name: digest
            for name, digest in files.items()
            if name not in OF_A_RUN and (what != "checkpoints" or not digest or name.startswith("checkpoints/"))
        }
        label = " ".join(filter(None, [record.arm, f"r{record.replicate}" if record.replicate > 1 else ""]))
        wrong = [f"{label}: {name}" for name, digest in wanted.items() if now.files.get(name) != digest]
        known = found.get(what, Bytes(what, 0, ()))
        found[what] = Bytes(what, known.files + len(wanted), (*known.differing, *wrong))
    return list(found.values())


def _records(target: Target, again: Reproduced) -> Bytes:
    """What checkpoints answered, by sha256."""
    before = {_asked(one): one.file.digest for one in target.study.finished.evaluated}
    now = {_asked(one): one.file.digest for one in again.finished.evaluated}
    common = before.keys() & now.keys()
    return Bytes("records", len(common), tuple(sorted(key for key in common if before[key] != now[key])))


def _position(record: RunRecord) -> tuple[Any, ...]:
    return record.kind, record.arm, record.replicate, record.stage


def _asked(one: Evaluated) -> str:
    place = f"{one.arm} r{one.replicate} stage {one.stage}" if one.arm else "base"
    return f"{place} step {one.step}: {one.kind} {one.benchmark}"


def _varying(again: Reproduced) -> tuple[str, ...]:
    notes = [recorded.read_result(Path(record.path)).notes for record in again.finished.runs]
    told = [sentence for note in notes for sentence in note.get("told", []) if "deterministic kernel" in sentence]
    return tuple(dict.fromkeys(told))
