"""What a study may not ask for is refused before anything runs, with the field and a remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from holdfast.artifacts import DataRef
from holdfast.check import check, longest_prompt
from holdfast.config import Study
from holdfast.data.shards import read_questions, write_questions
from holdfast.errors import UserError
from holdfast.jobs import Check
from holdfast.models.encode import encode


def checked(data: DataRef, stage: dict[str, Any] | None = None, **study: Any) -> dict[str, Any]:
    arm = {"method": "sft", "source": "answers", "trainer": {"max_steps": 2}, **(stage or {})}
    if arm["method"] == "grpo":
        del arm["source"]
    return check(Check(study=Study(name="s", arms={"a": [arm]}, **study), data=data))


def test_a_study_that_works_is_let_through(tiny_data: DataRef) -> None:
    assert checked(tiny_data, {"lora": {"r": 4, "target_modules": "all-linear"}})["longest_prompt"] > 40


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ({"trainer": {"max_step": 1}}, "arms.a.0.trainer.max_step is no argument"),
        ({"trainer": {"max_length": 20}}, "arms.a.0.trainer.max_length: 20 tokens cut off training prompts"),
        ({"freeze": ["vision"]}, "arms.a.0.freeze: no parameter's name contains `vision`"),
        ({"lora": {"r": 4, "target_modules": ["foo"]}}, "arms.a.0.lora"),
        ({"lora": {"rank": 4}}, "arms.a.0.lora"),
        ({"lora": {"r": 4, "target_modules": ["lm_head"]}}, "arms.a.0.lora: TRL cannot train an adapter"),
        (
            {"method": "grpo", "trainer": {"max_completion_length": 5}},
            "arms.a.0.trainer.max_completion_length: 5 tokens cannot hold the right answer",
        ),
    ],
)
def test_an_arm_that_cannot_work_is_refused_by_field(tiny_data: DataRef, stage: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as refused:
        checked(tiny_data, stage)
    assert words in str(refused.value)


def test_an_evaluation_limit_that_cannot_hold_an_answer_is_refused(tiny_data: DataRef) -> None:
    with pytest.raises(UserError, match=r"evaluation\.max_new_tokens: 6 tokens cannot hold the right answer"):
        checked(tiny_data, evaluation={"max_new_tokens": 6})


def test_a_limit_that_would_cut_the_teachers_style_off_is_refused(tiny_data: DataRef) -> None:
    with pytest.raises(UserError, match=r"evaluation\.max_new_tokens: 40 .* in the style that arms\.a\.0 teaches"):
        checked(tiny_data, {"source": "teacher"}, evaluation={"max_new_tokens": 40})


def test_a_prompt_longer_than_the_model_is_refused(tiny_data: DataRef) -> None:
    with pytest.raises(UserError, match="more than the model's 4096; lower"):
        checked(tiny_data, evaluation={"max_new_tokens": 4090})


def test_a_path_that_is_no_checkpoint_is_refused(tiny_data: DataRef, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.path"):
        checked(tiny_data, model={"path": str(tmp_path)})


def test_prompts_are_as_long_as_the_processor_makes_them(tiny_data: DataRef, processor: Any) -> None:
    questions = read_questions(tiny_data.path / "prior-color.parquet")
    lengths = [len(row["input_ids"]) for row in encode(processor, questions)]
    assert longest_prompt(processor, questions).tokens == max(lengths)


def test_a_teacher_who_says_nothing_is_refused(tiny_data: DataRef, tmp_path: Path) -> None:
    for file in tiny_data.path.iterdir():
        silent = [question._replace(teacher="") for question in read_questions(file)]
        write_questions(tmp_path / file.name, silent)
    with pytest.raises(UserError, match=r"arms\.a\.0\.source: question \S+ has no teacher's reasoning"):
        checked(DataRef(path=tmp_path, digest="x"), {"source": "teacher"})
    checked(DataRef(path=tmp_path, digest="x"), {"source": "answers"})
