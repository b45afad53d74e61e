"""A study that ended, in a store: real runs, artifacts and digests, with small files in place of what stages make."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from flows import certificate
from flows.certificate import code_digests
from holdfast.config.jobs import Compare
from holdfast.config.methods import SFT, Answers
from holdfast.config.refs import DataRef, FileRef, ModelRef, content_key, directory_digest, file_digest
from holdfast.config.results import Evaluated, FinishedStudy, Result
from holdfast.config.study import Study
from holdfast.journal import Journal
from holdfast.models.tiny.shipped import shipped_base
from holdfast.stages import process
from tasks.certificate import issue, parts_of
from tasks.evaluations import MODELS, model_tag
from tasks.recorded import COMPARED
from tasks.stage import StageRun, run_record
from tasks.tracking import Store

STEP = 4
CHECKPOINT = f"checkpoints/step-{STEP:06d}"
STUDY = Study(name="study", arms={"answers": (SFT(method="sft", source=Answers()),)})


class Recorded(NamedTuple):
    root: Path
    store: Store
    parent: str
    """The id of the study's run."""
    trained: StageRun

    def artifacts(self, run_id: str) -> Path:
        return self.store.artifacts.of(self.store.run(run_id))


def record_study(root: Path, store: Store) -> Recorded:
    """One training of STUDY, with its data, evaluations, report and certificate."""
    data = _data(root)
    parent = store.begin(STUDY.experiment, STUDY.name, {"holdfast.kind": "study"})
    base = shipped_base()
    trained = _stage(store, parent, root / "made" / "train", {"kind": "train", "arm": "answers", "replicate": 1})
    kept = trained.result.checkpoints[0]
    tuned = ModelRef(path=str(trained.path / kept.path), digest=kept.digest, step=STEP)
    evaluated = (*_evaluation(store, parent, root, base), *_evaluation(store, parent, root, tuned, "answers"))
    runs = (trained,)
    files = {f"{data.path.name}/{path.name}": file_digest(path, "md5") for path in sorted(data.path.iterdir())}
    issued = issue(parts_of(STUDY, base, files, code_digests(STUDY)), "0" * 32 + ".dir")
    finished = FinishedStudy(
        study=STUDY, data=data, runs=(run_record(trained),), evaluated=evaluated, certificate=issued.digest
    )
    compared = Compare(name=STUDY.name, studies=(finished,), command="", data_version="").model_dump_json(indent=1)
    report = root / "made" / "report.html"
    report.write_text("<p>report</p>")
    report.with_name("summary.json").write_text("{}")
    store.artifacts.upload(parent, report.parent, ["report.html", "summary.json"])
    store.artifacts.text(parent, STUDY.model_dump_json(indent=1), "config.json")
    store.artifacts.text(parent, compared, COMPARED)
    certificate.write(issued, runs, certificate.file_digests(report, compared, STUDY), parent, store)
    store.end(parent, "FINISHED")
    return Recorded(root, store, parent, trained)


def _data(root: Path) -> DataRef:
    place = root / "data" / "study-01234567"
    place.mkdir(parents=True)
    for split in ("train", "validation", "test"):
        (place / f"target-{split}.parquet").write_bytes(split.encode() * 100)
    digest = content_key({path.name: file_digest(path) for path in place.iterdir()})
    return DataRef(path=place, digest=digest)


def _evaluation(store: Store, parent: str, root: Path, model: ModelRef, arm: str | None = None) -> list[Evaluated]:
    name = f"records/step-{model.step:06d}/color.parquet"
    place = root / "made" / f"evaluate-{arm or 'base'}"
    (place / name).parent.mkdir(parents=True)
    (place / name).write_bytes(f"answers of {arm}".encode())
    position: dict[str, Any] = {"arm": arm, "replicate": 1 if arm else 0}
    run = _stage(store, parent, place, {"kind": "evaluate", **position}, {MODELS: model_tag([model])})
    file = FileRef(path=run.path / name, digest=run.result.files[name])
    return [Evaluated(kind="records", **position, step=model.step, benchmark="color", file=file)]


def _stage(
    store: Store, parent: str, place: Path, position: dict[str, Any], tags: dict[str, str] | None = None
) -> StageRun:
    if position["kind"] == "train":
        (place / CHECKPOINT).mkdir(parents=True)
        (place / CHECKPOINT / "model.safetensors").write_bytes(b"weights" * 1000)
        kept = {"step": STEP, "path": CHECKPOINT, "digest": directory_digest(place / CHECKPOINT)}
        Journal(place).log(STEP, {"train/loss": 1.0}, kept)
    result: Result = process.result(place, 1.0, {})
    (place / "result.json").write_text(result.model_dump_json())
    key = content_key(position)
    about = {f"holdfast.{name}": str(value or "") for name, value in position.items()}
    about |= {"holdfast.study": STUDY.name, "holdfast.stage_key": key, "mlflow.parentRunId": parent, **(tags or {})}
    run_id = store.begin(STUDY.experiment, position["kind"], about)
    path = store.artifacts.upload_last(run_id, place, [*result.files, "result.json"])
    store.end(run_id, "FINISHED")
    return StageRun(**position, run_id=run_id, path=path, digest=key, found=False, seconds=1.0, result=result)
