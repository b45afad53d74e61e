"""`holdfast grade`: what a grader reads, said before a training uses it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from flows.commands.main import app


def invoke(*arguments: str, stdin: str | None = None) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["grade", *arguments], input=stdin)
    return result.exit_code, " ".join(result.output.split())


def test_every_text_has_what_was_read_the_verdict_and_the_score() -> None:
    code, output = invoke("number", "--answer", "-5", "- 5", "<answer> 5 </answer>", "3 or 4")
    assert code == 0
    assert "- 5 parsed: -5 verdict: correct score: 1.0" in output
    assert "<answer> 5 </answer> parsed: 5 verdict: wrong score: 0.0" in output
    assert "3 or 4 parsed: none verdict: no answer score: 0.0" in output
    assert "without <answer> </answer> are graded whole" in output


def test_what_a_target_would_be_read_as_leniently_stands_beside_where_it_differs() -> None:
    output = invoke("jigsaw", "--answer", "4 2 3 1", "The order is 4, 2, 3, 1.", "4 1 3 1")[1]
    told = "parsed: none verdict: no answer score: 0.0 read leniently, beside a target's score: 4 2 3 1 score: 1.0"
    assert told in output
    assert output.count("leniently") == 1


def test_texts_in_tags_need_no_remark() -> None:
    assert "graded whole" not in invoke("choice", "--answer", "B", "<answer> **B** </answer>")[1]


def test_several_answers_are_accepted_and_lines_come_from_stdin() -> None:
    code, output = invoke("exact", "--answer", "yes", "--answer", "no", "-", stdin="No.\nmaybe\n")
    assert code == 0
    assert "No. parsed: No. verdict: correct score: 1.0 maybe parsed: maybe verdict: wrong score: 0.0" in output
    assert "score: 0.5" in invoke("vqa", "--answer", "yes", "--answer", "no", "yes")[1]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("judge", "--answer", "3", "3"), "'judge' is no grader; use one of arithmetic, box, boxed, choice"),
        (("number", "--answer", "many", "3"), "--answer: 'many' cannot be graded by 'number'; write one number."),
        (("box", "--answer", "3", "3"), "write a box x1 y1 x2 y2"),
        (("grounding", "--answer", "3", "3"), "'3' cannot be graded by 'grounding'"),
        (("counting", "--answer", "0", "3"), "'0' cannot be graded by 'counting'"),
        (("exact", "--answer", "  ", "3"), "cannot be graded by 'exact'"),
    ],
)
def test_what_cannot_be_graded_ends_with_code_2_and_one_sentence(arguments: tuple[str, ...], told: str) -> None:
    code, output = invoke(*arguments)
    assert code == 2
    assert told in output
    assert len(output) < 300


def test_a_grader_is_tried_without_anything_heavy() -> None:
    code = (
        "import sys; from flows.commands.grade import grade_lines as lines; "
        "print(list(lines('box', ['1 2 5 6'], ['1 2 5 6'])) and "
        "[m for m in ('prefect', 'mlflow', 'torch', 'pandas', 'datasets') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
