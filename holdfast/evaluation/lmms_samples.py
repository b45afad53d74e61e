"""Answers as lmms-eval 0.7.3 writes its samples: `DATE_samples_TASK.jsonl`, a row a question, without its doc.

A row has the metrics that the task's own `process_results` makes of the answer: what lmms-eval adds up. Imports no
torch.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from holdfast.benchmarks.grading.lenient import without_reasoning
from holdfast.benchmarks.public import mme, mmmu, refcoco
from holdfast.benchmarks.public.benchmarks import MODULES
from holdfast.benchmarks.public.protocol import Doc
from holdfast.config.refs import content_key
from holdfast.evaluation.records import Record

OURS = "holdfast"
"""Under which our own verdict stands."""
TARGETS = {"docvqa": "answers", **dict.fromkeys(refcoco.SOURCES, "bbox")}
"""Columns of docs that their tasks call the target; `answer` elsewhere."""
POPE = ("accuracy", "precision", "recall", "f1_score", "yes_ratio")
REFCOCO = ("IoU", "ACC@0.1", "ACC@0.3", "ACC@0.5", "ACC@0.7", "ACC@0.9", "Center_ACC")


def is_scored(grader: str) -> bool:
    """Whether a benchmark is one of lmms-eval's: those with images are, those of text are lm-evaluation-harness's."""
    return bool(MODULES[grader].SOURCES[grader].images)


def file_name(grader: str, when: datetime) -> str:
    """As lmms-eval names the samples of a task."""
    return f"{when:%Y%m%d_%H%M%S}_samples_{MODULES[grader].SOURCES[grader].harness}.jsonl"


def row(doc_id: int, doc: Doc, record: Record, read: str) -> dict[str, Any]:
    """A record's row; `read` is what lmms-eval scores of its completion."""
    return {
        "doc_id": doc_id,
        "target": str(doc[TARGETS.get(record.grader, "answer")]),
        **({} if read == record.completion else {"resps": [record.completion]}),
        "filtered_resps": read,
        "token_counts": [{"output_tokens": record.tokens}],
        "doc_hash": content_key(doc),
        **METRICS[record.grader](doc, record, read),
        OURS: {name: getattr(record, name) for name in ("authors", "correct", "strict", "score", "cut")},
        "input": record.prompt,
    }


def _docvqa(_doc: Doc, record: Record, _read: str) -> Doc:
    return {"anls": record.authors}


def _mme(doc: Doc, record: Record, _read: str) -> Doc:
    kind = "cognition" if doc["category"] in mme.COGNITION else "perception"
    of = {"question_id": doc["question_id"], "category": doc["category"], "score": record.authors}
    return {f"mme_{kind}_score": of}


def _mmstar(doc: Doc, record: Record, _read: str) -> Doc:
    of = {"question_id": doc["index"], "l2_category": doc["l2_category"], "score": record.authors}
    return {doc["category"]: of, "average": of}


def _mmmu(doc: Doc, record: Record, read: str) -> Doc:
    listed = mmmu.options(doc)
    given = mmmu.authors_letter(without_reasoning(read), listed) if listed else [record.parsed or ""]
    known = {"id": doc["id"], "subdomain": record.group, "question_type": doc["question_type"], "answer": doc["answer"]}
    return {"mmmu_acc": {**known, "parsed_pred": [given or ""], "score": record.authors}}


def _pope(doc: Doc, record: Record, read: str) -> Doc:
    of = {
        "question_id": doc["question_id"],
        "score": record.authors,
        "prediction": without_reasoning(read).lower().strip(),
        "ground_truth": doc["answer"].lower().strip(),
    }
    return {f"pope_{name}": of for name in POPE}


def _refcoco(doc: Doc, _record: Record, read: str) -> Doc:
    """With how the box was asked for, beside what theirs has."""
    asked = {name: doc[name] for name in refcoco.ASKED if name in doc}
    given = {"answer": doc["answer"], "pred": refcoco.sides(read), "ann_id": doc["question_id"], "bbox": doc["bbox"]}
    return {f"refcoco_{name}": {**given, **asked} for name in REFCOCO}


METRICS: dict[str, Callable[[Doc, Record, str], Doc]] = {
    "docvqa": _docvqa,
    "mme": _mme,
    "mmstar": _mmstar,
    "mmmu": _mmmu,
    "pope": _pope,
    **dict.fromkeys(refcoco.SOURCES, _refcoco),
}
