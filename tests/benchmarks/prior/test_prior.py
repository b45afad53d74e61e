"""The bundled prior benchmarks: what they ask is true, chance is what it says, and nothing hostile is paid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.benchmarks import catalog
from holdfast.benchmarks.prior import comparison, grounding, presence
from holdfast.config.prior import PRIOR_NAMES
from holdfast.data.world import world_scene

NAMES = pytest.mark.parametrize("name", PRIOR_NAMES)


def test_the_config_names_every_benchmark_of_the_catalog():
    assert set(PRIOR_NAMES) == set(catalog.PRIOR)


@NAMES
def test_a_reference_is_graded_right_and_in_form(name):
    for question in catalog.prior_questions(name, 40, seed=1):
        grade = catalog.grade(question.grader, question.reference, question.answer)
        assert (grade.correct, grade.score) == (True, 1.0), question


@NAMES
def test_the_same_seed_asks_the_same_and_another_seed_asks_otherwise(name):
    first = list(catalog.prior_questions(name, 5, seed=1))
    assert first == list(catalog.prior_questions(name, 5, seed=1))
    assert first != list(catalog.prior_questions(name, 5, seed=2))


@NAMES
def test_train_and_test_share_no_image(name):
    shown = {split: {q.images for q in catalog.prior_questions(name, 60, 0, split)} for split in ("train", "test")}
    assert not shown["train"] & shown["test"]


@pytest.mark.parametrize("name", ["presence", "comparison", "pieces"])
def test_half_of_the_two_way_answers_are_each_way(name):
    answers = [question.answer for question in catalog.prior_questions(name, 400, seed=3)]
    shares = [answers.count(answer) / len(answers) for answer in sorted(set(answers))]
    assert shares == pytest.approx([0.5, 0.5], abs=0.08)


def test_chance_is_what_guessing_the_answers_of_others_scores():
    assert catalog.chance("color") == pytest.approx(0.25, abs=0.03)
    assert catalog.chance("pieces") == pytest.approx(0.5, abs=0.03)
    assert catalog.chance("digits") == pytest.approx(0.1, abs=0.03)
    assert catalog.chance("grounding") < 0.2
    assert catalog.chance("mine") is None


def test_presence_tells_the_truth_about_the_cell_it_asks_for():
    for index in range(200):
        scene = world_scene(0, "presence", index)
        question = presence.ask(scene, np.random.default_rng(index))
        if question is None:
            continue
        words = question.prompt.rstrip("?").split()
        thing, word = scene.at(int(words[-1]) - 1), words[-4]
        assert (question.answer == "yes") == (thing is not None and word in (thing.color, thing.shape))


def test_comparison_tells_the_truth_about_two_colors():
    for index in range(100):
        scene = world_scene(0, "comparison", index)
        question = comparison.ask(scene, np.random.default_rng(index))
        if question is not None:
            one, two = (scene.at(int(word) - 1) for word in question.prompt.split() if word.isdigit())
            assert (question.answer == "yes") == (one.color == two.color)


def test_a_box_is_right_from_half_an_overlap_on():
    right = "0 0 4 4"
    assert grounding.grade("<answer> 0 0 4 4 </answer>", right).score == 1.0
    # 8 of 16 cells overlap: 8 / 16.
    assert grounding.grade("<answer> 0 0 4 2 </answer>", right) == ("0 0 4 2", True, 0.5)
    # 4 cells overlap out of 4 + 16 - 4.
    assert grounding.grade("<answer> 0 0 2 2 </answer>", right) == ("0 0 2 2", False, 0.25)
    assert grounding.grade("<answer> 4 4 0 0 </answer>", right).score == 0.0
    assert grounding.grade("<answer> 0 0 4 </answer>", right).parsed is None


def test_boxes_are_rounded_to_sixteenths_of_the_image():
    assert grounding.raster((6, 4, 21, 18), 64) == (2, 1, 5, 5)


@given(completion=st.text(max_size=200), name=st.sampled_from(PRIOR_NAMES))
def test_no_text_crashes_a_grader_or_scores_beyond_its_bounds(completion, name):
    grade = catalog.grade(name, completion, "1 2 3 4" if name == "grounding" else "yes")
    assert 0.0 <= grade.score <= 1.0
    assert grade.correct <= (grade.parsed is not None)
