"""Forms teach how a target is answered; they must teach nothing about the answers."""

import pytest

from holdfast.benchmarks import catalog
from holdfast.benchmarks.form import jigsaw_forms, target_forms
from holdfast.benchmarks.target import Draw
from holdfast.config import Study

ARMS = {"a": [{"method": "sft", "source": "answers"}]}


@pytest.mark.parametrize("benchmark", sorted(catalog.TARGETS))
def test_a_form_is_an_answer_of_the_right_kind_that_is_right_no_more_often_than_a_guess(benchmark: str):
    forms = list(target_forms(benchmark, 200))
    grades = [catalog.grade(question.grader, said, question.answer) for question, said in forms]
    assert all(grade.parsed is not None for grade in grades)
    target = Study.model_validate({"name": "x", "target": {"benchmark": benchmark}, "arms": ARMS}).target
    assert sum(grade.score for grade in grades) / 200 < catalog.target_chance(target) + 0.12
    assert len({said for _, said in forms}) > 5


@pytest.mark.parametrize("benchmark", sorted(catalog.TARGETS))
def test_a_form_thinks_when_it_is_asked_to(benchmark: str):
    asked = [("<think>" in question.prompt, "<think>" in said) for question, said in target_forms(benchmark, 60)]
    assert {prompt for prompt, _ in asked} == {True, False}
    assert all(prompt == said for prompt, said in asked)


def test_the_images_of_forms_are_in_no_split():
    shown = {image for question, _ in target_forms("counting", 50) for image in question.images}
    target = Study.model_validate({"name": "x", "target": {"benchmark": "counting"}, "arms": ARMS}).target
    for split in ("train", "validation", "test"):
        posed = [catalog.TARGETS["counting"].ask(target, Draw(0, split, number)) for number in range(50)]
        assert not shown & {image for asked in posed for image in asked.question("x", target).images}


def test_forms_are_the_same_every_time_and_differ_by_seed():
    assert list(target_forms("spatial", 5)) == list(target_forms("spatial", 5))
    assert list(target_forms("spatial", 5)) != list(target_forms("spatial", 5, seed=1))
    assert list(jigsaw_forms("train", 3)) == list(jigsaw_forms("train", 3))
