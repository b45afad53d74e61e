"""The data of arXiv 2607.04364 in the authors' layout becomes a target with their split, prompt, metric and reward."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
from mrcl_set import SCRIPT, mrcl, written

from holdfast.benchmarks.catalog import grade_leniently, judge
from holdfast.benchmarks.dataset import inputs_digest, make_data
from holdfast.benchmarks.grading.answer import Verdict
from holdfast.config.images import World
from holdfast.config.jobs import MakeData
from holdfast.config.targets import Banner
from holdfast.data.shards import Question, read_questions
from holdfast.errors import UserError


def target(root: Path, **more: object) -> Banner:
    place = root / "Puzzle"
    given = {"train": 100, "validation": 2, "test": 100, "thinking": False, "grader": "boxed", **more}
    return Banner(benchmark="banner", path=place / "train.jsonl", test_path=place / "test.jsonl", **given)


def made(job: Banner, out: Path) -> tuple[dict[str, list[Question]], list[str]]:
    out.mkdir()
    prior = [{"benchmark": "color", "questions": 1}]
    notes = make_data(MakeData(images=World(), target=job, prior=prior), out)
    return {name: read_questions(out / f"target-{name}.parquet") for name in ("train", "validation", "test")}, notes[
        "told"
    ]


def test_the_authors_test_questions_are_tested_and_the_rest_is_learned_from(tmp_path: Path):
    done = written(mrcl(tmp_path / "mrcl"))
    assert done.stdout.splitlines()[-1] == f"{tmp_path / 'mrcl' / 'Puzzle' / 'test.jsonl'}: 4 questions"
    found, told = made(target(tmp_path / "mrcl"), tmp_path / "data")
    assert [question.id for question in found["test"]] == [f"banner-test-{number:06d}" for number in range(1, 5)]
    assert len(found["train"]) + len(found["validation"]) == 10
    assert len(found["validation"]) >= 1
    [short] = told
    assert "9 of 100 for train" in short
    [first, *_] = found["test"]
    assert first.prompt.startswith("You are an AI assistant helping to solve the following problem")
    assert first.prompt.endswith("D, E...). What is shown in figure 10? A. a lung B. a heart C. a knee D. none")
    assert (first.answer, first.reference, first.benchmark) == ("C", r"\boxed{C}", "banner")


def test_a_training_row_with_a_tests_image_is_left_out_and_named(tmp_path: Path):
    written(mrcl(tmp_path / "mrcl", shared=2))
    found, told = made(target(tmp_path / "mrcl"), tmp_path / "data")
    assert len(found["test"]) == 4
    assert len(found["train"]) + len(found["validation"]) == 8
    assert [line for line in told if "another split shows" in line] == [
        "2 row(s) are left out, since another split shows their picture: banner-000009, banner-000010."
    ]


@pytest.mark.parametrize(
    ("completion", "score"),
    [
        (r"It is a knee, so \boxed{C}.", 1.0),
        (r"\boxed{A}? No: \boxed{ c }", 1.0),
        (r"\boxed{$C$}", 1.0),
        (r"\boxed{C: a knee}", 1.0),
        (r"so \boxed{C", 1.0),
        ("C", 1.0),
        (r"\boxed{\text{C}}", 0.0),
        (r"\boxed{A, C}", 0.0),
        (r"\boxed{C} or rather \boxed{B}", 0.0),
        ("It is C.", 0.0),
    ],
)
def test_an_answer_is_right_as_the_authors_compare_it(completion: str, score: float):
    asked = Question("a", "a", (), "?", "C", r"\boxed{C}", "boxed", "banner")
    assert judge(asked, completion).score == score
    assert judge(asked, completion).correct == (score == 1)


@pytest.mark.parametrize("completion", [r"\boxed{}", r"It is C, so \boxed{ }", r"\boxed{C}, no, \boxed{", ""])
def test_an_empty_box_is_no_answer_whatever_stands_around_it(completion: str):
    asked = Question("a", "a", (), "?", "C", r"\boxed{C}", "boxed", "banner")
    assert judge(asked, completion) == Verdict(None, False, 0.0)
    assert grade_leniently("boxed", completion, "C").parsed is None


def test_of_an_answer_in_parts_each_in_its_place_counts():
    asked = Question("a", "a", (), "?", "1; 2", "", "boxed", "banner")
    assert judge(asked, r"\boxed{1;3}").score == 0.5
    assert judge(asked, r"\boxed{2;1}").score == 0.0
    assert judge(asked, r"\boxed{1 ; 2}").correct


def test_less_than_twenty_words_cost_one_half():
    too_short = runpy.run_path(str(SCRIPT))["too_short"]
    assert too_short([[{"content": "word " * 19}], [{"content": "word " * 20}]], answer=["A", "B"]) == [-0.5, 0.0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"conversations": []}, "MedBookVQA/train, record 1: has no image and two conversations"),
        (
            {"conversations": [{"value": "?"}, {"value": "x = 3"}]},
            "the answer 'x = 3' is no letter; this task needs another grader",
        ),
    ],
)
def test_records_of_another_layout_or_kind_are_refused_by_their_number(
    tmp_path: Path, change: dict[str, object], said: str
):
    root = mrcl(tmp_path / "mrcl")
    file = root / "MedBookVQA" / "jsons" / "train" / "data.json"
    first, *others = json.loads(file.read_text())
    file.write_text(json.dumps([{**first, **change}, *others]))
    done = written(root)
    assert done.returncode == 1
    assert said in done.stderr


def test_the_file_of_test_questions_counts_and_has_to_be_there(tmp_path: Path):
    written(mrcl(tmp_path / "mrcl"))
    one = target(tmp_path / "mrcl")
    before = inputs_digest(World(), (), [one])
    with (tmp_path / "mrcl" / "Puzzle" / "test.jsonl").open("a") as file:
        file.write("\n")
    assert inputs_digest(World(), (), [one]) != before
    (tmp_path / "mrcl" / "Puzzle" / "test.jsonl").unlink()
    with pytest.raises(UserError, match=r"target\.test_path: .*test\.jsonl is not there"):
        made(one, tmp_path / "data")
