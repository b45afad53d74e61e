from pathlib import Path

import pytest

from flows.commands.experiment import load_experiment, load_study
from flows.commands.plan import PlannedStage, plan_lines
from flows.commands.vary import merged
from flows.estimate import StageId
from holdfast.config.sweep import Sweep
from holdfast.errors import UserError
from tasks.stage import Position

BUNDLED = Path("experiments/bundled.yaml")
ARMS = "arms: {sft: [{method: sft, source: teacher}]}\n"
TASKS = """
vary:
  task:
    easy: {target: {benchmark: classes, difficulty: 0.1}}
    hard: {target: {benchmark: spatial}}
  reasoning:
    thinking:
      arms:
        longer: [{method: grpo, rewards: {score: 1, longer: {kind: length, variant: minmax}}}]
    direct: {target: {thinking: false}}
"""


def sweep(tmp_path: Path, vary: str, *overrides: str) -> Sweep:
    file = tmp_path / "x.yaml"
    file.write_text(f"name: x\n{ARMS}{vary}")
    experiment = load_experiment(file, overrides)
    assert isinstance(experiment, Sweep)
    return experiment


def refusal(tmp_path: Path, vary: str) -> str:
    with pytest.raises(UserError) as error:
        sweep(tmp_path, vary)
    return str(error.value)


def test_a_sweep_has_a_study_for_every_combination_of_levels(tmp_path: Path):
    found = sweep(tmp_path, TASKS)
    assert found.factors == {"task": ("easy", "hard"), "reasoning": ("thinking", "direct")}
    assert [member.study.name for member in found.members] == [
        "x-easy-thinking",
        "x-easy-direct",
        "x-hard-thinking",
        "x-hard-direct",
    ]
    assert [member.levels["task"] for member in found.members] == ["easy", "easy", "hard", "hard"]


def test_levels_that_look_like_dates_or_switches_are_names(tmp_path: Path):
    found = sweep(tmp_path, "vary: {day: {2026-02-03: {}, 2026-02-30: {seed: 1}}, think: {on: {}, off: {}}}")
    assert found.factors == {"day": ("2026-02-03", "2026-02-30"), "think": ("on", "off")}


def test_a_level_sets_fields_beside_those_of_other_levels(tmp_path: Path):
    studies = {member.study.name: member.study for member in sweep(tmp_path, TASKS).members}
    target = studies["x-easy-direct"].target
    assert (target.benchmark, target.difficulty, target.thinking) == ("classes", 0.1, False)
    assert list(studies["x-hard-thinking"].arms) == ["sft", "longer"]
    assert list(studies["x-hard-direct"].arms) == ["sft"]


def test_the_studies_of_a_sweep_share_an_experiment_in_mlflow(tmp_path: Path):
    assert {member.study.experiment for member in sweep(tmp_path, TASKS).members} == {"x"}
    assert load_study(BUNDLED).experiment == "bundled"


def test_set_turns_any_experiment_into_a_sweep_over_the_values_of_a_field():
    found = load_experiment(BUNDLED, ["vary.seed=[0, 1, 2]"])
    assert isinstance(found, Sweep)
    assert [member.study.seed for member in found.members] == [0, 1, 2]
    assert [member.study.name for member in found.members] == ["bundled-0", "bundled-1", "bundled-2"]


def test_a_list_reaches_a_field_deep_inside(tmp_path: Path):
    found = sweep(tmp_path, "vary: {model.recipe.matrix_learning_rate: [1e-3, 0.002]}")
    assert found.factors == {"matrix_learning_rate": ("0.001", "0.002")}
    assert [member.study.model.recipe.matrix_learning_rate for member in found.members] == [0.001, 0.002]
    assert found.members[0].study.name == "x-0_001"


def test_set_reaches_what_all_studies_have_in_common(tmp_path: Path):
    assert {member.study.target.test for member in sweep(tmp_path, TASKS, "target.test=20").members} == {20}


@pytest.mark.parametrize(
    ("vary", "said"),
    [
        ("vary: [seed]", "vary: is a mapping of factors"),
        ("vary: {seed: 3}", "vary.seed: is a list of a field's values"),
        ("vary: {seed: []}", "vary.seed: is a list of a field's values"),
        ("vary: {think: {true: {}, false: {}}}", "put such a level in quotes"),
        ("vary: {a: {one: 3}}", "vary.a.one: is a mapping of fields, not 3"),
        ("vary: {a: {'o/n': {}}}", "'o/n' is no name for a level"),
        ("vary: {a: {one: {sead: 3}}}", "sead: unknown field"),
        ("vary: {target.train: [8], b.train: [8]}", "two factors are named 'train'"),
        ("vary: {a: {'0.1': {}, '0_1': {}}}", "two studies are named 'x-0_1'"),
    ],
)
def test_what_vary_cannot_mean_is_refused_in_a_sentence(tmp_path: Path, vary: str, said: str):
    assert said in refusal(tmp_path, vary)


def test_a_sweep_is_no_single_study(tmp_path: Path):
    with pytest.raises(UserError, match="describes 2 studies where one is needed"):
        load_study(BUNDLED, ["vary.seed=[0, 1]"])


def test_merging_replaces_what_is_no_mapping_and_leaves_its_arguments_alone():
    common = {"a": {"b": 1, "c": [1, 2]}, "d": 3}
    assert merged(common, {"a": {"c": [3]}, "e": None}) == {"a": {"b": 1, "c": [3]}, "d": 3, "e": None}
    assert common == {"a": {"b": 1, "c": [1, 2]}, "d": 3}


def test_a_star_sets_a_field_of_all_stages_of_all_arms(tmp_path: Path):
    found = sweep(tmp_path, "vary: {'arms.*.*.trainer.learning_rate': [1e-4, 2e-4]}")
    assert found.factors == {"learning_rate": ("0.0001", "0.0002")}
    for member, rate in zip(found.members, (1e-4, 2e-4), strict=True):
        [stage] = member.study.arms["sft"]
        assert stage.trainer == {"learning_rate": rate}


def test_a_place_in_a_list_is_a_number_and_the_others_stay():
    content = {"a": [{"b": 1, "c": 2}, {"b": 3}], "d": [1]}
    assert merged(content, {"a": {"1": {"b": 4}}}) == {"a": [{"b": 1, "c": 2}, {"b": 4}], "d": [1]}
    assert merged(content, {"a": {"*": {"c": 5}}})["a"] == [{"b": 1, "c": 5}, {"b": 3, "c": 5}]
    assert merged(content, {"*": {"0": 7}}) == {"a": [7, {"b": 3}], "d": [7]}
    assert content == {"a": [{"b": 1, "c": 2}, {"b": 3}], "d": [1]}


def test_the_plan_of_a_sweep_counts_a_base_that_its_studies_share_once():
    found = load_experiment(BUNDLED, ["vary={target.thinking: [true, false]}", "compute.parallel=1"])
    base, training = StageId("base"), StageId("train", Position("rft", 1))
    stages = [PlannedStage(base, False, 600.0), PlannedStage(training, False, 60.0)]
    lines = plan_lines(found, [stages, stages])
    assert lines[0] == "bundled: 2 studies, varying thinking (True, False)"
    assert lines[1].startswith("  bundled-True: 2,000 puzzles of 2×2")
    assert lines[-1] == "To do: about 12 min."
