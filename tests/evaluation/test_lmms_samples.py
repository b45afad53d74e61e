"""Answers to lmms-eval's benchmarks go to its files and back."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import prior_sets
import pytest

from flows.commands.samples import imported
from holdfast.benchmarks.public.benchmarks import MODULES
from holdfast.benchmarks.public.questions import judge, splits
from holdfast.config.prior import PublicPrior
from holdfast.data.shards import Question, write_questions
from holdfast.evaluation.harness_samples import benchmark_of, file_name, rows
from holdfast.evaluation.records import Record, read_records

WHEN = datetime(2026, 8, 6, 10, 22, 23)
NAMES = ["docvqa", "mme", "mmmu", "mmstar", "pope", "refcoco"]
COMPLETIONS = {
    "refcoco": ["[0.25, 0.25, 0.75, 0.75]", "nothing", "<think> [0, 0, 1, 1] </think> [0.25, 0.25, 0.75, 0.7]"],
    "mmstar": ["A", "The answer is (B) because", "<think> B? </think> C."],
    "mmmu": ["A", "The answer is (B)", "<think> 3 </think> so it is 4"],
}
YES_OR_NO = ["yes", "No, it is not.", "<think> yes? </think> No"]


def answered(folder: Path, name: str, **asked: Any) -> tuple[list[Record], list[Question], Path]:
    """Test questions, with records of completions in turn, and their shard."""
    prior = PublicPrior(benchmark=name, data=str(prior_sets.copy(folder / "copy", name)), questions=6, **asked)
    shard = folder / f"prior-{name}.parquet"
    found = [question for split, drawn in splits(prior, 0, []) for question in list(drawn) if split == "test"]
    write_questions(shard, found)
    said = COMPLETIONS.get(name, YES_OR_NO)
    return [record(question, said[place % 3]) for place, question in enumerate(found)], found, shard


def record(question: Question, completion: str) -> Record:
    verdict = judge(question, completion)
    return Record(
        benchmark=question.benchmark,
        role="prior",
        split="test",
        id=question.id,
        image_id=question.image_id,
        prompt=question.prompt,
        completion=completion,
        answer=question.answer,
        logprob=-1.0,
        tokens=3,
        grader=question.grader,
        **verdict._asdict(),
    )


def verdicts(records: list[Record]) -> list[tuple[Any, ...]]:
    return [(one.completion, one.parsed, one.correct, one.score, one.strict, one.authors, one.group) for one in records]


@pytest.mark.parametrize(
    ("name", "asked"), [*((name, {}) for name in NAMES[:-1]), ("refcoco", "unit"), ("refcoco", "qwen2.5-vl")]
)
def test_answers_that_are_exported_as_lmms_eval_has_them_come_back_with_the_same_verdicts(
    name: str, asked: Any, tmp_path: Path
) -> None:
    records, questions, shard = answered(tmp_path, name, **({"boxes": asked} if asked else {}))
    file = tmp_path / file_name(name, WHEN)
    assert file.name == f"20260806_102223_samples_{MODULES[name].SOURCES[name].harness}.jsonl"
    assert benchmark_of(file) == name
    lines = list(rows(records, questions))
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    # Of a box, lmms-eval's metrics repeat what was asked.
    told = list(imported(file, None, None if name == "refcoco" else shard, tmp_path / "back.parquet"))
    assert verdicts(read_records(tmp_path / "back.parquet")) == verdicts(records)
    assert told[0] == f"{name}: 6 answers"
    assert all("doc" not in line and "arguments" not in line for line in lines)
    assert {type(line["filtered_resps"]) for line in lines} == {str}


def test_a_box_in_pixels_is_exported_as_the_shares_that_lmms_eval_reads(tmp_path: Path) -> None:
    records, questions, _ = answered(tmp_path, "refcoco", boxes="qwen2.5-vl")
    [line, *_] = rows([record(questions[0], '[{"bbox_2d": [28, 21, 84, 63], "label": "man"}]')], questions)
    assert line["resps"] == ['[{"bbox_2d": [28, 21, 84, 63], "label": "man"}]']
    assert line["filtered_resps"] == "[0.25, 0.25, 0.75, 0.75]"
    assert line["refcoco_IoU"]["pred"] == [0.25, 0.25, 0.75, 0.75]
    assert line["target"] == "[0.25, 0.25, 0.75, 0.75]"
    assert records


def test_a_row_has_the_metrics_of_lmms_evals_task_and_no_answer_twice(tmp_path: Path) -> None:
    records, questions, _ = answered(tmp_path, "mme")
    first, *_ = rows(records, questions)
    doc = json.loads(next(one for one in questions if one.id == records[0].id).details)
    kind = "cognition" if doc["category"] == "code_reasoning" else "perception"
    of = {"question_id": doc["question_id"], "category": doc["category"], "score": records[0].authors}
    assert first[f"mme_{kind}_score"] == of
    assert "resps" not in first
    assert first["filtered_resps"] == "yes"
    assert first["input"] == records[0].prompt
    assert first["doc_id"] == int(records[0].id[-6:])
