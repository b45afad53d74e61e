"""A finished study of several targets whose matrix A[stage, benchmark] is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from holdfast.config.refs import DataRef, FileRef, content_key
from holdfast.config.results import Evaluated, FinishedStudy, RunRecord
from holdfast.config.study import Study
from holdfast.evaluation.records import Record, write_records
from holdfast.journal import Journal

STEP = 10
QUESTIONS = 20


def sequence_study(root: Path, matrices: Mapping[str, Sequence[Any]], order: Sequence[str] = ()) -> FinishedStudy:
    """Of arms by the matrices (rows, counting jigsaw color) of their replicates, in shares of 20 questions."""
    sft = {"method": "sft", "source": "answers"}
    arms = {arm: [sft | {"target": row} for row in range(1, len(own[0]))] for arm, own in matrices.items()}
    content = {"name": "made", "targets": {"counting": {}, "jigsaw": {}}, "prior": ["color"], "order": order}
    study = Study.model_validate(content | {"arms": arms, "replicates": 3})
    evaluated, runs = [], []
    first = next(iter(matrices.values()))[0]

    def add(arm: str | None, replicate: int, stage: int, step: int, row: Sequence[float]) -> None:
        for name, share in zip((*study.all_targets, "color"), row, strict=True):
            path = root / f"{arm}-{replicate}-{stage}" / "records" / f"step-{step:06d}" / f"{name}.parquet"
            write_records(
                path, [_record(name, number, number < round(share * QUESTIONS)) for number in range(QUESTIONS)]
            )
            file = FileRef(path=path, digest=content_key(str(path)))
            about = {"arm": arm, "replicate": replicate, "stage": stage, "step": step}
            evaluated.append(Evaluated(kind="records", benchmark=name, file=file, **about))

    add(None, 0, 0, 0, first[0])
    for arm, replicates in matrices.items():
        for replicate, rows in enumerate(replicates, 1):
            for stage, row in enumerate(rows[1:]):
                add(arm, replicate, stage, STEP, row)
                out = root / f"{arm}-{replicate}-{stage}"
                Journal(out).log(STEP, {"train/loss": 1.0})
                about = {"arm": arm, "replicate": replicate, "stage": stage, "path": str(out)}
                runs.append(RunRecord(kind="train", digest=str(out), seconds=1.0, **about))
    data = DataRef(path=root / "data", digest="ab" * 32)
    return FinishedStudy(study=study, data=data, runs=tuple(runs), evaluated=tuple(evaluated))


def _record(name: str, number: int, right: bool) -> Record:
    role: Any = "prior" if name == "color" else "target"
    about = {"benchmark": name, "role": role, "split": "test", "id": f"{name}-{number}", "image_id": f"{name}/{number}"}
    said = {"prompt": "?", "completion": "1", "parsed": "1", "answer": "1", "logprob": -1.0, "tokens": 2}
    return Record(**about, **said, correct=right, score=float(right), grader="exact")
