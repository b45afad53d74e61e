"""A target with a file of test questions, and one whose questions ask for a box and for no tags."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from holdfast.benchmarks.catalog import grade
from holdfast.benchmarks.dataset import make_data
from holdfast.config.images import World
from holdfast.config.jobs import MakeData
from holdfast.config.methods import TeacherFile
from holdfast.config.targets import Banner
from holdfast.data.shards import Question, read_questions
from holdfast.errors import UserError
from holdfast.evaluation.teaching import graded

BOXED = {"grader": "boxed", "thinking": False}
PRIOR = [{"benchmark": "color", "questions": 1}]


def rows(path: Path, answers: str, **more: str) -> Path:
    """A question in text for each letter."""
    asked = [{"question": f"{path.stem} {n}?", "answer": answer, **more} for n, answer in enumerate(answers, 1)]
    path.write_text("".join(json.dumps(row) + "\n" for row in asked))
    return path


def made(target: Banner, out: Path, seed: int = 0) -> tuple[dict[str, list[Question]], list[str]]:
    out.mkdir()
    told = make_data(MakeData(images=World(), target=target, prior=PRIOR, seed=seed), out)["told"]
    return {name: read_questions(out / f"target-{name}.parquet") for name in ("train", "validation", "test")}, told


def boxed(root: Path, **more: Any) -> Banner:
    learned = rows(root / "learned.jsonl", "ABCDABCD", reasoning="I looked.")
    return Banner(benchmark="banner", path=learned, **{"train": 4, "validation": 1, "test": 1, **BOXED, **more})


def test_fewer_test_questions_are_drawn_by_the_seed_and_told(tmp_path: Path) -> None:
    def tested(test: int, seed: int, out: str) -> tuple[list[str], list[str]]:
        target = boxed(tmp_path, test=test, test_path=rows(tmp_path / "sorted.jsonl", "AAAAABBBBB"))
        found, told = made(target, tmp_path / out, seed)
        return [question.id[-2:] for question in found["test"]], [line for line in told if "are asked" in line]

    three, told = tested(3, 0, "three")
    assert told == ["banner: 3 of 10 test questions are asked, drawn by the seed (target.test)."]
    assert len(three) == 3
    assert three == sorted(three) != ["01", "02", "03"]
    assert tested(3, 0, "again") == (three, told)
    first, again = (tmp_path / out / "target-test.parquet" for out in ("three", "again"))
    assert hashlib.sha256(first.read_bytes()).digest() == hashlib.sha256(again.read_bytes()).digest()
    assert {*three} < {*tested(5, 0, "five")[0]}
    assert len({tuple(tested(3, seed, f"seed-{seed}")[0]) for seed in range(8)}) > 1
    assert tested(10, 0, "all") == ([f"{number:02d}" for number in range(1, 11)], [])


def test_what_is_not_asked_of_the_test_questions_is_not_learned_either(tmp_path: Path) -> None:
    file = rows(tmp_path / "learned.jsonl", "ABCDABCD")
    few = tmp_path / "few.jsonl"
    few.write_text("".join(file.read_text().splitlines(keepends=True)[:4]))
    found, told = made(boxed(tmp_path, test_path=few), tmp_path / "data")
    learned = {question.id[-2:] for name in ("train", "validation") for question in found[name]}
    assert learned <= {"05", "06", "07", "08"}
    assert any(line.startswith("4 row(s) are left out") for line in told)


def test_boxes_are_learned_with_reasoning_and_without_tags(tmp_path: Path) -> None:
    found, _ = made(boxed(tmp_path), tmp_path / "data")
    for question in (one for questions in found.values() for one in questions):
        box = f"\\boxed{{{question.answer}}}"
        assert (question.reference, question.teacher) == (box, f"I looked. {box}")
        assert "<" not in question.prompt
        assert grade("boxed", question.teacher, question.answer).correct


def teacher(path: Path, questions: Sequence[Question], completion: str) -> TeacherFile:
    written = [{"id": one.id, "completion": completion.replace("ANSWER", one.answer)} for one in questions]
    path.write_text("".join(json.dumps(row) + "\n" for row in written))
    return TeacherFile(path=path)


def test_a_teacher_of_boxes_is_missed_no_tag(tmp_path: Path) -> None:
    questions = made(boxed(tmp_path), tmp_path / "data")[0]["train"]
    source = teacher(tmp_path / "own.jsonl", questions, r"I see a knee, so \boxed{ANSWER}.")
    kept, notes = graded(source, source.path, questions)
    assert (notes["kept"], notes["unformed"], notes["told"]) == (4, 0, [])
    assert {row.formed for row in kept} == {None}
    wrong = teacher(tmp_path / "wrong.jsonl", questions, r"so \boxed{E}")
    with pytest.raises(UserError, match=r"grader 'boxed' of the first; answer in \\boxed{}, or set source.keep: all"):
        graded(wrong, wrong.path, questions)


def test_a_row_alone_cannot_ask_for_a_box(tmp_path: Path) -> None:
    target = Banner(benchmark="banner", path=rows(tmp_path / "own.jsonl", "ABCD", grader="boxed"))
    with pytest.raises(
        UserError, match=r"target\.grader: question banner-00000\d is graded by `boxed` in its row alone"
    ):
        made(target, tmp_path / "data")
