import math

import pytest

from holdfast.benchmarks import catalog
from holdfast.benchmarks.question import Draw
from holdfast.benchmarks.targets.jigsaw import puzzle
from holdfast.config.model import Model, Recipe
from holdfast.config.refs import directory_digest
from holdfast.config.targets import Banner, Classes, Counting, Detection, Jigsaw, Spatial
from holdfast.data.world import world_scene
from holdfast.evaluation.generate import Reader, answer
from holdfast.models.base_ref import reference
from holdfast.models.load import load_model, load_processor
from holdfast.models.tiny.shipped import DIRECTORY, record
from holdfast.stages.ship_base import accuracies

TARGETS = [
    Jigsaw(),
    Classes(benchmark="classes"),
    Spatial(benchmark="spatial"),
    Banner(benchmark="banner"),
    Detection(benchmark="detection"),
    Counting(benchmark="counting"),
]


def test_the_base_that_comes_with_holdfast_is_the_recorded_one_and_is_small():
    assert directory_digest(DIRECTORY) == record()["digest"]
    assert sum(file.stat().st_size for file in DIRECTORY.iterdir()) <= 4.5e6
    assert Recipe(**record()["recipe"]) == Recipe()
    assert reference(Model()).path == str(DIRECTORY)


def test_it_knows_the_prior_benchmarks_as_well_as_recorded():
    said = record()["accuracy"]
    assert sum(said.values()) / len(said) >= 0.95
    assert said["grounding"] >= 0.75
    for name, found in accuracies(reference(Model()), 80).items():
        error = math.sqrt(max(said[name] * (1 - said[name]), 0.01) / 80)
        assert abs(found - said[name]) <= 3.5 * error, name


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.benchmark)
def test_it_has_no_skill_at_any_target_and_answers_in_its_form(target):
    base = reference(Model())
    model, reader = load_model(base), Reader(load_processor(base), 60)
    if isinstance(target, Jigsaw):
        scenes = [world_scene(7, "shipped", index).image for index in range(60)]
        questions = [puzzle(image, f"s/{index}", target, 7) for index, image in enumerate(scenes)]
    else:
        module = catalog.TARGETS[target.benchmark]
        drawn = [module.ask(target, Draw(7, "shipped", index)) for index in range(60)]
        questions = [one.with_completions(f"s/{index}", target) for index, one in enumerate(drawn)]
    references = [reader.completion_ids(question.reference) for question in questions]
    written, _ = answer(model, reader, reader.encode(questions), references, 96)
    grades = [
        catalog.grade(question.grader, reader.text(ids), question.answer)
        for question, ids in zip(questions, written, strict=True)
    ]
    chance = catalog.target_chance(target)
    assert chance is not None
    assert sum(grade.score for grade in grades) / len(grades) <= chance + 0.15
    assert sum(grade.parsed is None for grade in grades) / len(grades) <= 0.1


@pytest.mark.parametrize(
    ("model", "built"),
    [
        (Model(), False),
        (Model(recipe=Recipe(threads=1)), False),
        (Model(seed=0), True),
        (Model(recipe=Recipe(steps=10)), True),
        (Model(path="Qwen/Qwen2.5-VL-3B-Instruct"), False),
    ],
)
def test_a_base_is_built_only_where_a_seed_or_another_recipe_asks_for_it(model, built):
    assert model.is_built is built
