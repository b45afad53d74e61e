"""Records as lmms-eval and lm-evaluation-harness write their samples, and theirs graded here. Imports no torch.

lm-evaluation-harness: `samples_TASK_DATE.jsonl`, one row a question and filter, with its `doc`. lmms-eval
(`lmms_samples`): `DATE_samples_TASK.jsonl`, without `doc`, so the questions have to be those of a shard of ours.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from holdfast.benchmarks.grading.answer import Verdict
from holdfast.benchmarks.public.benchmarks import MODULES
from holdfast.benchmarks.public.protocol import Doc
from holdfast.benchmarks.public.questions import metrics
from holdfast.config.refs import content_key
from holdfast.data.shards import Question, read_questions
from holdfast.data.tables import named
from holdfast.errors import UserError, brief, reason
from holdfast.evaluation import lmms_samples
from holdfast.evaluation.lmms_samples import OURS
from holdfast.evaluation.records import Record

_FILE = re.compile(r"(?:.*_)?samples_(?P<task>.+?)(?:_\d{4}-\d{2}-\d{2}T[\d:.-]+)?\.jsonl")
_TASKS = {
    "refcoco_bbox_rec": "refcoco",
    "refcoco+_bbox_rec": "refcoco-plus",
    "refcocog_bbox_rec": "refcocog",
    "mmlu_pro": "mmlu-pro",
    "minerva_math500": "math500",
    "arc_": "arc",
}
"""Beginnings of their tasks' names, where ours is another."""


class Sample(NamedTuple):
    """What a harness kept of one answer."""

    doc: Doc
    completion: str
    theirs: dict[str, float]
    """Their metrics of it, by name and filter."""
    id: str


def rows(records: Sequence[Record], questions: Sequence[Question]) -> Iterator[dict[str, Any]]:
    """Records of a public benchmark with its questions, as rows of its harness. UserError for others."""
    by_id = {question.id: question for question in questions}
    for number, record in enumerate(records):
        question = by_id.get(record.id)
        if question is None or record.grader not in MODULES:
            raise UserError(f"{record.benchmark}: question {record.id} is none of the data's; run the study again.")
        doc = json.loads(question.details)
        module = MODULES[record.grader]
        read = module.exported(record.completion, doc) if hasattr(module, "exported") else record.completion
        place = number if hasattr(module, "doc_of") else _place(record.id)
        write = lmms_samples.row if lmms_samples.is_scored(record.grader) else _row
        yield write(place, doc, record, read)


def _row(doc_id: int, doc: Doc, record: Record, read: str) -> dict[str, Any]:
    """As lm-evaluation-harness has it; the filter under which our own verdict stands is ours."""
    return {
        "doc_id": doc_id,
        "doc": doc,
        "target": record.answer,
        "arguments": {"gen_args_0": {"arg_0": record.prompt, "arg_1": {}}},
        "input": record.prompt,
        "resps": [[record.completion]],
        "filtered_resps": [read],
        "filter": OURS,
        "metrics": ["authors", "correct", "strict", "score", "cut"],
        "doc_hash": content_key(doc),
        "authors": record.authors,
        "correct": float(record.correct),
        "strict": None if record.strict is None else float(record.strict),
        "score": record.score,
        "cut": None if record.cut is None else float(record.cut),
    }


def file_name(grader: str, when: datetime) -> str:
    """As its harness names the samples of a task."""
    if lmms_samples.is_scored(grader):
        return lmms_samples.file_name(grader, when)
    return f"samples_{MODULES[grader].SOURCES[grader].harness}_{when:%Y-%m-%dT%H-%M-%S.%f}.jsonl"


def require_file(file: Path) -> None:
    """UserError where it is not there."""
    if not file.is_file():
        raise UserError(f"{named(file)}: no such file; name a samples file of lmms-eval or lm-evaluation-harness.")


def benchmark_of(file: Path) -> str:
    """The benchmark of a harness's file, by its name. UserError for another one."""
    found = _FILE.fullmatch(file.name)
    task = found["task"] if found else file.stem
    for beginning, benchmark in (*_TASKS.items(), *((name, name) for name in MODULES)):
        if task.startswith(beginning):
            return benchmark
    raise UserError(
        f"{named(file)}: {brief(task)!r} is none of the benchmarks graded here; name one with --benchmark: "
        f"{', '.join(MODULES)}."
    )


def read(file: Path, benchmark: str, shard: Path | None = None) -> list[Sample]:
    """The answers of a harness's file, one a question. UserError where a row cannot be used."""
    asked = {_place(question.id): question for question in read_questions(shard)} if shard else {}
    found: dict[str, Sample] = {}
    for number, line in enumerate(file.read_text("utf-8", errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        place = f"{brief(file.name)}, row {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{place}: is no JSON ({reason(error)}); name a samples file of a harness.") from error
        sample = _sample(row, place, benchmark, asked)
        known = found.get(sample.id)
        found[sample.id] = sample if known is None else known._replace(theirs={**known.theirs, **sample.theirs})
    if not found:
        raise UserError(f"{named(file)}: holds no sample; let the harness write some with --log_samples.")
    return list(found.values())


def _sample(row: Any, place: str, benchmark: str, asked: dict[int, Question]) -> Sample:
    if not isinstance(row, dict) or "doc_id" not in row:
        raise UserError(f"{place}: is no sample of a harness, without a doc_id; name a samples file.")
    number = int(row["doc_id"])
    module = MODULES[benchmark]
    doc = row.get("doc") or (module.doc_of(row) if hasattr(module, "doc_of") else None)
    if doc is None and number in asked:
        doc = json.loads(asked[number].details)
    elif not isinstance(doc, dict):
        raise UserError(
            f"{place}: lmms-eval's files do not hold what was asked; name a shard with question {number}, such as "
            f"--questions data/STUDY/prior-{benchmark}.parquet."
        )
    missing = [column for column in _needed(benchmark) if column not in doc]
    if missing:
        raise UserError(f"{place}: its doc has no {missing[0]!r}, which {benchmark} is graded by; name another file.")
    filtered = f"{row['filter']}/" if row.get("filter") not in (None, "none") else ""
    theirs = {f"{filtered}{name}": value for name, given in row.items() if (value := _number(name, given)) is not None}
    return Sample(doc, _completion(row), theirs, str(number))


def _needed(benchmark: str) -> tuple[str, ...]:
    """Columns of a doc without which no answer can be graded."""
    module = MODULES[benchmark]
    return getattr(module, "GRADED_BY", module.SOURCES[benchmark].columns)


def _number(name: str, given: Any) -> float | None:
    """A metric of a row: a number, or lmms-eval's struct with a score."""
    if isinstance(given, dict):
        given = given.get("score")
    if name in ("doc_id", "filter") or not isinstance(given, bool | int | float):
        return None
    return float(given)


def _completion(row: dict[str, Any]) -> str:
    """The response, out of however many lists it lies in."""
    value = row.get("resps", row.get("filtered_resps"))
    while isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, str) else ""


def _place(name: str) -> int:
    """The row of the data set that a question is of."""
    found = re.search(r"-(\d{6,})(?:-\d+)?\Z", name)
    return int(found[1]) if found else -1


class Compared(NamedTuple):
    """A harness's answers graded here."""

    records: list[Record]
    ours: dict[str, float]
    theirs: dict[str, float]


def graded(samples: Sequence[Sample], benchmark: str) -> Compared:
    """Our records of a harness's answers, our metrics of them, and the means of theirs."""
    grade = MODULES[benchmark].grade
    records = [_record(sample, benchmark, grade(sample.completion, sample.doc)) for sample in samples]
    ours = {
        "accuracy": _mean([float(record.correct) for record in records]),
        "strict": _mean([float(bool(record.strict)) for record in records]),
        "unparsed": _mean([float(record.parsed is None) for record in records]),
        **metrics(benchmark, records),
    }
    names = list(dict.fromkeys(name for sample in samples for name in sample.theirs))
    theirs = {name: _mean([sample.theirs[name] for sample in samples if name in sample.theirs]) for name in names}
    return Compared(records, ours, theirs)


def _record(sample: Sample, benchmark: str, verdict: Verdict) -> Record:
    return Record(
        benchmark=benchmark,
        role="prior",
        split="test",
        id=f"{benchmark}-{int(sample.id):06d}",
        image_id="",
        prompt="",
        completion=sample.completion,
        parsed=verdict.parsed,
        answer=str(sample.doc.get("answer", "")),
        correct=verdict.correct,
        score=verdict.score,
        logprob=float("nan"),
        tokens=0,
        grader=benchmark,
        strict=verdict.strict,
        authors=verdict.authors,
        group=verdict.group,
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
