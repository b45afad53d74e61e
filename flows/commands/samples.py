"""`holdfast samples` and `holdfast rescore`: answers to and from lmms-eval and lm-evaluation-harness."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from flows.compare import finished
from holdfast.benchmarks.public.benchmarks import MODULES
from holdfast.config.results import Evaluated, FinishedStudy
from holdfast.data.shards import prior_shard, read_questions
from holdfast.errors import UserError, writing
from holdfast.evaluation import harness_samples
from holdfast.evaluation.records import read_records, write_records
from tasks.tracking import Store


def export(name: str, out: Path, store: Store) -> list[Path]:
    """Write what a study's checkpoints answered to public benchmarks, one file each. UserError where there is none."""
    written = [path for study in finished(name, store) for path in _exported(study, out)]
    if not written:
        raise UserError(f"{name}: no public benchmark was asked; name one in `prior` (docs/benchmarks.md).")
    return written


def _exported(study: FinishedStudy, out: Path) -> Iterator[Path]:
    when = datetime.now()
    for one in study.evaluated:
        if one.kind != "records":
            continue
        records = [record for record in read_records(one.file.path) if record.split == "test"]
        if not records or records[0].grader not in MODULES:
            continue
        shard = study.data.path / prior_shard(one.benchmark)
        if not shard.is_file():
            raise UserError(f"{shard}: the questions are gone; `holdfast data FILE` restores them.")
        place = out / _place(study, one) / harness_samples.file_name(records[0].grader, when)
        rows = harness_samples.rows(records, read_questions(shard))
        with writing(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        yield place


def _place(study: FinishedStudy, one: Evaluated) -> Path:
    """A directory a checkpoint, as harnesses have one a model, and a benchmark, which may be asked in two ways."""
    trained = f"{one.arm}-{one.replicate}-{one.stage}" if one.arm else "base"
    return Path(study.study.name, trained, f"step-{one.step:06d}", one.benchmark)


def imported(file: Path, benchmark: str | None, questions: Path | None, out: Path | None) -> Iterator[str]:
    """Lines to print: our metrics of a harness's answers beside theirs. With `out`, records are written there."""
    if benchmark is not None and benchmark not in MODULES:
        raise UserError(f"--benchmark: {benchmark!r} is none of {', '.join(MODULES)}.")
    harness_samples.require_file(file)
    kind = benchmark or harness_samples.benchmark_of(file)
    if questions is not None and not questions.is_file():
        raise UserError(f"--questions: {questions} is no file; name a prior-*.parquet of a study's data.")
    found = harness_samples.graded(harness_samples.read(file, kind, questions), kind)
    yield f"{kind}: {len(found.records)} answers"
    yield from (f"  ours    {name:<32} {value:.4f}" for name, value in found.ours.items())
    yield from (f"  theirs  {name:<32} {value:.4f}" for name, value in found.theirs.items())
    if out is not None:
        with writing(out):
            write_records(out, found.records)
        yield f"Records: {out}"
