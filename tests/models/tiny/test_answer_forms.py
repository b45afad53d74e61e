"""Forms teach how a target is answered; they must teach nothing about the answers."""

import pytest

from holdfast.benchmarks import catalog
from holdfast.benchmarks.question import Draw
from holdfast.config.study import Study
from holdfast.models.tiny.answer_forms import jigsaw_forms, target_forms

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
    forms = [("<think>" in question.prompt, "<think>" in said) for question, said in target_forms(benchmark, 60)]
    assert {prompt for prompt, _ in forms} == {True, False}
    assert all(prompt == said for prompt, said in forms)


def test_the_images_of_forms_are_in_no_split():
    shown = {image for question, _ in target_forms("counting", 50) for image in question.images}
    target = Study.model_validate({"name": "x", "target": {"benchmark": "counting"}, "arms": ARMS}).target
    for split in ("train", "validation", "test"):
        questions = [catalog.TARGETS["counting"].ask(target, Draw(0, split, number)) for number in range(50)]
        assert not shown & {image for question in questions for image in question.with_completions("x", target).images}


def test_forms_are_the_same_every_time_and_differ_by_seed():
    assert list(target_forms("spatial", 5)) == list(target_forms("spatial", 5))
    assert list(target_forms("spatial", 5)) != list(target_forms("spatial", 5, seed=1))
    assert list(jigsaw_forms("train", 3)) == list(jigsaw_forms("train", 3))


def test_reasoning_that_states_facts_differs_in_length_and_is_true():
    plain = [said for _, said in jigsaw_forms("train", 40)]
    assert all("piece 1" not in said for said in plain)
    told = [(q, said) for q, said in jigsaw_forms("train", 80, facts=4) if "piece" in said.replace("pieces", "")]
    for question, said in told:
        facts = said.split("</think>")[0].split()[1:]
        for piece, row in zip(facts[1::3], facts[2::3], strict=True):
            assert (piece in question.answer.split()[:2]) == (row == "sky")
    assert {said.count("piece ") for _, said in told} == {1, 2, 3, 4}


def test_the_facts_of_a_count_are_what_the_picture_shows():
    told = [(q, said) for q, said in target_forms("counting", 80, facts=3) if " cell " in said]
    for question, said in told:
        shape = question.prompt.split("Number of ")[1].split(":")[0][:-1].removesuffix("e")
        assert said.split("</think>")[0].count(shape) <= int(question.answer)
    assert {said.count("cell ") for _, said in told} == {1, 2, 3}
