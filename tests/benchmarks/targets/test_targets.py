"""What all drawn targets promise: right references, balanced answers, chance as stated, the same every time."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.benchmarks import catalog
from holdfast.benchmarks.grading.answer import formatted
from holdfast.benchmarks.question import Draw
from holdfast.benchmarks.targets import banner, classes, counting, jigsaw, spatial
from holdfast.benchmarks.targets.protocol import described
from holdfast.config.study import Study
from holdfast.config.targets import Arithmetic, Banner, Classes, Counting, Detection, Jigsaw, Spatial, Target
from holdfast.data.shards import Question

DRAWN: dict[str, Target] = {
    "classes": Classes(benchmark="classes"),
    "spatial": Spatial(benchmark="spatial"),
    "banner": Banner(benchmark="banner"),
    "detection": Detection(benchmark="detection"),
    "grounding": Detection(benchmark="detection", find="one"),
    "counting": Counting(benchmark="counting"),
}
PICTURED = pytest.mark.parametrize("target", list(DRAWN.values()), ids=list(DRAWN))
DRAWN["arithmetic"] = Arithmetic(benchmark="arithmetic")
EACH = pytest.mark.parametrize("target", list(DRAWN.values()), ids=list(DRAWN))


def draw_question(target: Target, number: int, seed: int = 0, split: str = "train"):  # type: ignore[no-untyped-def]
    return catalog.TARGETS[target.benchmark].ask(target, Draw(seed, split, number))


def shard_question(target: Target, number: int, seed: int = 0, split: str = "train") -> Question:
    return draw_question(target, number, seed, split).with_completions(f"{split}/{number}", target)


@EACH
@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(0, 500), st.sampled_from([0.0, 0.3, 0.5, 1.0]), st.booleans())
def test_references_and_teachers_are_right_and_well_formed(
    target: Target, seed: int, number: int, difficulty: float, thinking: bool
) -> None:
    target = target.model_copy(update={"difficulty": difficulty, "thinking": thinking})
    question = shard_question(target, number, seed)
    for completion in (question.reference, question.teacher):
        grade = catalog.grade(question.grader, completion, question.answer)
        assert (grade.correct, grade.score) == (True, 1.0), question.answer
    assert formatted(question.teacher, thinking=True)
    assert formatted(question.reference, thinking=False)
    assert ("<think>" in question.prompt) == thinking
    assert question.benchmark == target.benchmark


@PICTURED
def test_images_have_the_stated_size_in_multiples_of_a_token(target: Target) -> None:
    size = catalog.TARGETS[target.benchmark].SIZE
    assert all(side % 32 == 0 for side in size)
    assert {image.size for number in range(6) for image in draw_question(target, number).images} == {size}


@PICTURED
def test_splits_seeds_and_numbers_share_no_image(target: Target) -> None:
    places = [(seed, split, number) for seed in (0, 1) for split in ("train", "test") for number in range(30)]
    seen = {shard_question(target, number, seed, split).images for seed, split, number in places}
    assert len(seen) == len(places)


@EACH
def test_another_process_draws_the_same(target: Target) -> None:
    program = (
        "import sys, hashlib; from pydantic import TypeAdapter\n"
        "from holdfast.config.targets import Target; from holdfast.benchmarks import catalog\n"
        "from holdfast.benchmarks.question import Draw\n"
        "target = TypeAdapter(Target).validate_json(sys.argv[1])\n"
        "questions = [catalog.TARGETS[target.benchmark].ask(target, Draw(3, 'test', i)).with_completions('i', target)"
        " for i in range(8)]\n"
        "print(hashlib.sha256(repr(questions).encode()).hexdigest())"
    )
    command = [sys.executable, "-c", program, target.model_dump_json()]
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    there = subprocess.run(command, check=True, env=environment, capture_output=True, text=True).stdout.strip()
    here = [draw_question(target, number, 3, "test").with_completions("i", target) for number in range(8)]
    assert there == hashlib.sha256(repr(here).encode()).hexdigest()


def answers(target: Target, count: int) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for number in range(count):
        question = draw_question(target, number)
        found[question.group][question.answer] += 1
    return found


def test_classes_are_equally_frequent() -> None:
    found = answers(DRAWN["classes"], 80)
    assert set(found) == set(classes.NAMES[:8])
    assert {sum(counts.values()) for counts in found.values()} == {10}


@pytest.mark.parametrize(
    ("name", "expected"), [("spatial", spatial.KINDS), ("banner", banner.ANSWERS)], ids=["spatial", "banner"]
)
def test_kinds_of_question_and_the_answers_of_each_are_equally_frequent(
    name: str, expected: dict[str, tuple[str, ...]]
) -> None:
    found = answers(DRAWN[name], 120 * len(expected))
    assert set(found) == set(expected)
    for kind, options in expected.items():
        assert sum(found[kind].values()) == 120
        assert found[kind] == Counter({option: 120 // len(options) for option in options})


def test_counts_are_equally_frequent_whatever_the_shape() -> None:
    target = DRAWN["counting"]
    most = counting.largest(target)
    found = answers(target, 4 * most * 5)
    assert {group: sum(counts.values()) for group, counts in found.items()} == {
        str(number): 20 for number in range(1, most + 1)
    }


@EACH
def test_guessing_scores_the_stated_chance(target: Target) -> None:
    """A guesser draws from the answers that questions of the same kind have."""
    rng = np.random.default_rng(0)
    questions = [draw_question(target, number, split="test") for number in range(600)]
    kinds = defaultdict(list)
    for one in questions:
        kinds[_kind(target, one)].append(one.answer)
    scores = []
    for one in questions:
        options = kinds[_kind(target, one)]
        guess = options[rng.integers(len(options))]
        scores.append(catalog.grade(one.grader, f"<answer> {guess} </answer>", one.answer).score)
    assert np.mean(scores) == pytest.approx(catalog.target_chance(target), abs=0.06)


def _kind(target: Target, question) -> object:  # type: ignore[no-untyped-def]
    if target.benchmark == "spatial" and question.group == "relation":
        return question.answer in ("left", "right")
    return question.group if target.benchmark in ("spatial", "banner") else None


@pytest.mark.parametrize(("name", "expected"), [("classes", 1 / 8), ("spatial", 13 / 36), ("banner", 0.195)])
def test_chance_by_hand(name: str, expected: float) -> None:
    assert catalog.target_chance(DRAWN[name]) == pytest.approx(expected)


def test_chance_of_a_public_data_set_is_unknown_and_of_a_jigsaw_its_share_of_pieces() -> None:
    assert catalog.target_chance(Spatial(benchmark="spatial", public="array/SAT")) is None
    assert catalog.target_chance(Banner(benchmark="banner", path="own.jsonl")) is None
    assert catalog.target_chance(Jigsaw(grid=(2, 2))) == jigsaw.score_by_chance(Jigsaw()) == 0.25


@pytest.mark.parametrize("completion", ["", "<answer></answer>", "<answer> a </answer><answer> b </answer>", "<think>"])
@EACH
def test_what_has_no_answer_earns_nothing(target: Target, completion: str) -> None:
    question = draw_question(target, 0)
    assert catalog.grade(question.grader, completion, question.answer).score == 0


def study(**target: object) -> Study:
    arms = {"answers": ({"method": "sft", "source": "answers"},)}
    return Study.model_validate({"name": "s", "arms": arms, **({"target": target} if target else {})})


def test_a_target_without_a_benchmark_is_a_jigsaw() -> None:
    assert study().target == Jigsaw()
    assert study(train=400).target == Jigsaw(train=400)
    assert isinstance(study(benchmark="classes", train=400).target, Classes)


def test_a_public_data_set_may_be_given_by_its_name_alone() -> None:
    target = study(benchmark="classes", public="HuggingFaceM4/FGVC-Aircraft").target
    assert isinstance(target, Classes)
    assert target.public is not None
    assert target.public.name == "HuggingFaceM4/FGVC-Aircraft"


def test_a_target_is_told_in_a_few_words() -> None:
    assert described(Jigsaw()) == "2×2 jigsaw"
    assert described(Classes(benchmark="classes", per_class=4)) == "classes from drawn images, 4 of each class"
    assert described(Spatial(benchmark="spatial", public="array/SAT")) == "spatial from array/SAT"
    assert described(Arithmetic(benchmark="arithmetic")) == "arithmetic from drawn problems"
