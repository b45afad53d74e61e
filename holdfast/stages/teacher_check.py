"""Refuse a teacher whom its student could not learn from, before anything is trained."""

from __future__ import annotations

from typing import Any, NamedTuple

from holdfast.config.methods import Demonstration, Distill, ModelTeacher
from holdfast.config.refs import ModelRef
from holdfast.data.shards import Question
from holdfast.errors import UserError
from holdfast.models.load import load_config, load_processor
from holdfast.stages.lengths import longest_prompt
from holdfast.training.distillation import demonstrated


class Student(NamedTuple):
    """The study's model."""

    processor: Any
    config: Any
    limit: int
    """Of a completion, in tokens."""


def require_family(where: str, stage: Distill, student: Student) -> None:
    """`where` is what an error calls the stage.

    Raises:
        UserError: the teacher is of another family, or has other tokens.
    """
    if isinstance(stage.teacher, ModelTeacher):
        _require_family(f"{where}.teacher.path: {stage.teacher.path}", stage.teacher.path, student)


def require_room(where: str, stage: Distill, student: Student, questions: list[Question]) -> None:
    """UserError if the teacher cannot read a question with its example."""
    room = getattr(student.config.get_text_config(), "max_position_embeddings", None)
    if isinstance(stage.teacher, Demonstration) and room is not None:
        try:
            shown = [demonstrated(question) for question in questions]
        except UserError as error:
            raise UserError(f"{where}.{error}") from error
        tokens, name = longest_prompt(student.processor, shown)
        if tokens + student.limit > room:
            raise UserError(
                f"{where}.teacher: question {name} with its example takes {tokens} tokens, and with "
                f"evaluation.max_new_tokens {student.limit} more than the model's {room}; name another teacher"
            )


def _require_family(where: str, path: str, student: Student) -> None:
    teacher = ModelRef(path=path, digest="")
    kind, own = load_config(teacher).model_type, student.config.model_type
    if kind != own:
        raise UserError(f"{where} is a {kind} model and the study's a {own}; name a teacher of the same family")
    if load_processor(teacher).tokenizer.get_vocab() != student.processor.tokenizer.get_vocab():
        raise UserError(f"{where} has other tokens than the study's model; name a teacher with the same tokenizer")
