"""Kinds of aircraft: stable between splits, closer together as they get harder, learnable from pixels."""

from __future__ import annotations

import numpy as np
import pytest

from holdfast.benchmarks.question import Annotation, Draw
from holdfast.benchmarks.targets import classes
from holdfast.config.targets import Classes

TARGET = Classes(benchmark="classes")


def spread(difficulty: float) -> float:
    """Mean distance of two kinds, every proportion in shares of its range."""
    kinds = classes.kinds(TARGET.model_copy(update={"difficulty": difficulty}), 0)
    table = np.array([[kind[name] for name in classes.RANGES] for kind in kinds])
    table /= np.ptp(np.array(list(classes.RANGES.values())), axis=1)
    return float(np.mean([np.linalg.norm(a - b) for i, a in enumerate(table) for b in table[:i]]))


def test_difficulty_brings_kinds_closer_together() -> None:
    distances = [spread(difficulty) for difficulty in (0, 0.5, 1)]
    assert distances == sorted(distances, reverse=True)
    assert distances[2] == pytest.approx(distances[0] * classes.CLOSEST)


def test_kinds_differ_between_seeds_and_not_between_splits() -> None:
    assert classes.kinds(TARGET, 0) != classes.kinds(TARGET, 1)
    assert len({tuple(kind.values()) for kind in classes.kinds(TARGET, 0)}) == TARGET.classes


def test_names_stand_in_the_question_or_do_not() -> None:
    assert "Alba, Brio" in classes.ask(TARGET, Draw(0, "train", 0)).prompt
    question = classes.ask(TARGET.model_copy(update={"names": False}), Draw(0, "train", 0))
    assert question.prompt == "Which kind is shown?"


def test_a_row_is_asked_for_its_label_among_all_labels() -> None:
    row = Annotation((), label="A330", labels=("A320", "A330"))
    question = classes.read(row, TARGET, Draw(0, "train", 0))
    assert question is not None
    assert (question.prompt, question.answer) == ("Which kind is shown: A320, A330?", "A330")
    assert classes.read(Annotation(()), TARGET, Draw(0, "train", 0)) is None


def test_the_teacher_describes_the_kind_and_not_the_picture() -> None:
    said: dict[str, set[str]] = {}
    for number in range(40):
        question = classes.ask(TARGET, Draw(0, "train", number))
        said.setdefault(question.answer, set()).add(question.reasoning)
    assert all(len(reasons) == 1 for reasons in said.values())
