"""A teacher's file is graded row by row before anyone learns from it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from holdfast.config.jobs import FromFile, Sample
from holdfast.config.methods import TeacherFile
from holdfast.config.refs import DataRef, FileRef, ModelRef
from holdfast.data.shards import Question, read_questions
from holdfast.data.training_set import train_rows
from holdfast.errors import UserError
from holdfast.evaluation.teaching import graded


@pytest.fixture(scope="module")
def questions(tiny_data: DataRef) -> list[Question]:
    return read_questions(tiny_data.path / "target-train.parquet")


def lines(path: Path, rows: Sequence[dict[str, Any]]) -> TeacherFile:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return TeacherFile(path=path)


def taught(questions: list[Question]) -> list[dict[str, Any]]:
    """A right completion, one without reasoning, a wrong and an unreadable one, and a second one for the first."""
    first, second, third, fourth, *_ = questions
    return [
        {"id": first.id, "completion": first.teacher},
        {"id": second.id, "completion": second.reference},
        {"id": third.id, "completion": "<think> no </think> <answer> 9 9 9 9 </answer>"},
        {"id": fourth.id, "completion": "I would rather not."},
        {"id": first.id, "completion": first.teacher},
    ]


def test_right_rows_are_learned_from_and_the_others_are_counted(
    questions: list[Question], tiny_model: ModelRef, run_stage: Callable, train_job: Callable, tmp_path: Path
) -> None:
    train = train_job({"method": "sft", "source": {"kind": "file", "path": str(tmp_path / "own.jsonl")}})
    source = lines(tmp_path / "own.jsonl", taught(questions))
    job = Sample(
        source=FromFile(file=FileRef(path=source.path, digest="own"), settings=source),
        model=tiny_model,
        base=tiny_model,
        data=train.data,
        questions=train.questions,
        limit=16,
    )
    out = run_stage(job, tmp_path / "out")
    notes = json.loads((out / "result.json").read_text())["notes"]
    assert {name: notes[name] for name in ("drawn", "kept", "dropped", "unparsed", "unformed")} == {
        **{"drawn": 5, "kept": 3, "dropped": 2},
        **{"unparsed": 2 - notes["wrong"], "unformed": 1},
    }
    assert "2 of 5 completions" in notes["told"][0]
    assert "the first in row 3; they are left out" in notes["told"][0]
    assert notes["told"][1:] == [
        f"1 of 3 completions to learn from in {source.path} lack the reasoning in <think> </think> that the target "
        "asks for, the first in row 2.",
        f"{source.path} teaches 2 of the 24 training questions; the others are left out.",
    ]
    samples = FileRef(path=out / "samples.parquet", digest="samples")
    found = train_rows(train.model_copy(update={"samples": samples}))
    first, second = questions[:2]
    expected = [(first.id, first.teacher), (second.id, second.reference), (first.id, first.teacher)]
    assert [(row.question.id, row.completion) for row in found] == expected
    assert all(row.ended for row in found)
    assert set(pq.read_table(samples.path)["model"].to_pylist()) == {"own"}


def test_all_rows_are_kept_where_that_is_asked_for(questions: list[Question], tmp_path: Path) -> None:
    source = lines(tmp_path / "own.jsonl", taught(questions)).model_copy(update={"keep": "all"})
    kept, notes = graded(source, source.path, questions)
    assert (len(kept), notes["dropped"]) == (5, 0)
    assert notes["told"][0].endswith("they are kept.")


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"id": "nobody", "completion": "x"}, r"row 2: id 'nobody' is none of the training questions"),
        ({"id": "", "completion": "x"}, r"row 2: id is missing or empty"),
        ({"completion": "x"}, r"row 2: id is missing or empty"),
        ({"id": None, "completion": " "}, r"row 2: completion is missing or empty|row 2: id is missing"),
        ({"id": ["a"], "completion": "x"}, r"row 2: id is list; write text"),
    ],
)
def test_a_row_that_cannot_be_used_is_a_sentence(
    questions: list[Question], tmp_path: Path, row: dict[str, Any], told: str
) -> None:
    source = lines(tmp_path / "own.jsonl", [taught(questions)[0], row])
    with pytest.raises(UserError, match=told):
        graded(source, source.path, questions)


def test_a_file_without_a_right_answer_or_without_reasoning_is_refused(
    questions: list[Question], tmp_path: Path
) -> None:
    wrong = lines(tmp_path / "wrong.jsonl", taught(questions)[2:4])
    with pytest.raises(UserError, match=r"wrong\.jsonl: none of its 2 completions is right, by the grader 'jigsaw'"):
        graded(wrong, wrong.path, questions)
    bare = lines(tmp_path / "bare.jsonl", taught(questions)[1:2])
    with pytest.raises(UserError, match=r"bare\.jsonl: no completion has reasoning in <think> </think>"):
        graded(bare, bare.path, questions)
    empty = lines(tmp_path / "empty.jsonl", [])
    with pytest.raises(UserError, match="holds no completion"):
        graded(empty, empty.path, questions)
    with pytest.raises(UserError, match=r"source\.path: .*no\.jsonl is no JSONL or Parquet file"):
        graded(empty, tmp_path / "no.jsonl", questions)


def test_text_outside_of_the_tags_is_told_and_a_whole_file_is_not(questions: list[Question], tmp_path: Path) -> None:
    rows = [{"id": question.id, "completion": question.teacher} for question in questions]
    whole = lines(tmp_path / "whole.jsonl", rows)
    assert graded(whole, whole.path, questions)[1]["told"] == []
    rows[4]["completion"] += " So there."
    odd = lines(tmp_path / "odd.jsonl", rows)
    [told] = graded(odd, odd.path, questions)[1]["told"]
    assert told.endswith("lack a tag that the target asks for, or have text outside of them, the first in row 5.")
    assert told.startswith("1 of 24 completions to learn from in ")
