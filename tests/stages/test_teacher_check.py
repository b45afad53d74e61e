"""A teacher whom the study's model could not learn from is refused before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken

from flows.jobs import check_job, teacher_model
from holdfast.config.jobs import Check
from holdfast.config.methods import Distill
from holdfast.config.refs import DataRef, ModelRef
from holdfast.config.study import Study
from holdfast.data.shards import read_questions
from holdfast.errors import UserError
from holdfast.models.load import load_model, load_processor, save_checkpoint
from holdfast.stages.lengths import longest_prompt
from holdfast.stages.preflight import check
from holdfast.training.distillation import demonstrated


def study(teacher: Any, path: str, **given: Any) -> Study:
    return Study(
        name="s", model={"path": path}, arms={"a": [{"method": "distill", "teacher": teacher}]}, evaluation=given
    )


def copied(of: ModelRef, to: Path, **config: int) -> Path:
    """A checkpoint with another configuration, or of other tokens."""
    model, processor = load_model(of), load_processor(of)
    for name, value in config.items():
        setattr(model.config.get_text_config(), name, value)
    if not config:
        processor.tokenizer.add_tokens([AddedToken("Xylophon")])
    save_checkpoint(model, processor, to)
    return to


def test_a_model_by_its_path_teaches_where_it_has_the_same_tokens(
    tiny_data: DataRef, tiny_model: ModelRef, schooled: ModelRef, tmp_path: Path
) -> None:
    whole = study({"kind": "model", "path": schooled.path}, tiny_model.path)
    job = check_job(whole, tiny_data)
    [teacher] = [ref for ref in map(teacher_model, whole.trained["a"]) if ref is not None]
    assert (teacher.path, job.teachers) == (schooled.path, {teacher.path: teacher.digest})
    assert check(job)["longest_prompt"] > 40
    other = copied(tiny_model, tmp_path / "other")
    with pytest.raises(UserError, match=r"arms\.a\.0\.teacher\.path: .*other has other tokens than the study's model"):
        check(Check(study=study({"kind": "model", "path": str(other)}, tiny_model.path), data=tiny_data))
    nowhere = Distill(method="distill", teacher={"kind": "model", "path": str(tmp_path / "nowhere")})
    with pytest.raises(UserError, match=r"^teacher\.path: .*nowhere is no directory"):
        teacher_model(nowhere)


def test_a_question_with_its_example_has_to_fit(tiny_data: DataRef, tiny_model: ModelRef, tmp_path: Path) -> None:
    roomy = check(Check(study=study("demonstration", tiny_model.path, max_new_tokens=24), data=tiny_data))
    questions = read_questions(tiny_data.path / "target-train.parquet")
    longest = longest_prompt(load_processor(tiny_model), [demonstrated(question) for question in questions])
    assert longest.tokens > roomy["longest_prompt"]
    room = longest.tokens + 24 - 1
    short = str(copied(tiny_model, tmp_path / "short", max_position_embeddings=room))
    check(Check(study=study({"kind": "model", "path": tiny_model.path}, short, max_new_tokens=24), data=tiny_data))
    with pytest.raises(
        UserError,
        match=r"arms\.a\.0\.teacher: question \S+ with its example takes \d+ tokens.* more than the model's "
        + str(room),
    ):
        check(Check(study=study("demonstration", short, max_new_tokens=24), data=tiny_data))
    enough = str(copied(tiny_model, tmp_path / "enough", max_position_embeddings=room + 1))
    check(Check(study=study("demonstration", enough, max_new_tokens=24), data=tiny_data))
