from pathlib import Path

import pytest

from flows.commands.experiment import load_study
from flows.commands.plan import PlannedStage, plan_lines, remaining
from flows.estimate import StageId, rough_time, stage_ids
from tasks.stage import Position

BUNDLED = load_study(Path("experiments/bundled.yaml"), ["replicates=2", "compute.parallel=2", "compute.device=cpu"])
OF_ARMS = [
    ("train", "rft"),
    ("evaluate", "rft"),
    ("influence", "rft"),
    ("sample", "self"),
    ("train", "self"),
    ("evaluate", "self"),
    ("influence", "self"),
    ("train", "teacher"),
    ("evaluate", "teacher"),
    ("influence", "teacher"),
    ("train", "answers"),
    ("evaluate", "answers"),
    ("influence", "answers"),
    ("sample", "rollouts"),
    ("train", "rollouts"),
    ("evaluate", "rollouts"),
    ("influence", "rollouts"),
]


def stages(found: bool, seconds: float | None) -> list[PlannedStage]:
    return [PlannedStage(stage_id, found, seconds) for stage_id in stage_ids(BUNDLED)]


def test_a_plan_names_every_stage_of_the_default_study():
    found = [(verb, position.arm, position.replicate) for verb, position in stage_ids(BUNDLED)]
    of_arms = [(verb, arm, replicate) for replicate in (1, 2) for verb, arm in OF_ARMS]
    assert found == [("data", None, 0), ("evaluate", None, 0), *of_arms]


def test_a_base_that_is_built_is_a_stage():
    built = load_study(Path("experiments/bundled.yaml"), ["model.recipe.steps=10"])
    assert [verb for verb, position in stage_ids(built) if position.arm is None] == ["data", "base", "evaluate"]


def test_replicates_of_a_stage_are_one_line():
    first = StageId("train", Position("teacher", 1))
    partly = [stage._replace(found=stage.stage_id == first) for stage in stages(False, 100.0)]
    lines = plan_lines(BUNDLED, [partly])
    assert len(lines) == 1 + 2 + len(OF_ARMS) + 1
    [line] = [line for line in lines if line.split()[:1] == ["teacher"]]
    assert line.split(maxsplit=1)[1] == "about 2 min"
    [line] = [line for line in lines if line.startswith("  answers:") and "evaluation" in line]
    assert line.endswith("2 × about 2 min")


def test_arms_share_the_time_and_common_stages_do_not():
    # Two common stages, then those of the arms' replicates, two at a time.
    assert remaining(BUNDLED, stages(False, 10.0)) == 2 * 10 + 2 * len(OF_ARMS) * 10 / 2


def test_no_study_is_faster_than_its_longest_chain():
    slow = StageId("train", Position("rft", 2))
    long = [PlannedStage(stage.stage_id, False, 100.0 if stage.stage_id == slow else 1.0) for stage in stages(False, 1)]
    # rft, its evaluation and influence, then samples of it, the training on them, its evaluation and influence.
    assert remaining(BUNDLED, long) == 2 + 106


def test_a_stage_nobody_knows_leaves_the_time_unknown():
    assert remaining(BUNDLED, stages(False, None)) is None
    assert "time unknown" in plan_lines(BUNDLED, [stages(False, None)])[-1]


def test_found_stages_take_no_time():
    assert remaining(BUNDLED, stages(True, None)) == 0
    assert "Everything is there" in plan_lines(BUNDLED, [stages(True, None)])[-1]


def test_stages_behind_data_that_are_not_made_may_still_be_found():
    assert "up to" in plan_lines(BUNDLED, [stages(False, 1.0)])[-1]
    data, *others = stages(False, 1.0)
    assert "up to" not in plan_lines(BUNDLED, [[data._replace(found=True), *others]])[-1]


@pytest.mark.parametrize(
    ("seconds", "text"), [(1, "about 5 s"), (61, "about 60 s"), (100, "about 2 min"), (9000, "about 2.5 h")]
)
def test_estimates_are_told_no_more_precisely_than_they_are_known(seconds: float, text: str):
    assert rough_time(seconds) == text


def test_a_plan_tells_what_is_learned():
    assert plan_lines(BUNDLED, [stages(True, 1.0)])[0].startswith("bundled: 2,000 puzzles of 2×2, prior benchmarks: 8")
    classes = load_study(Path("experiments/bundled.yaml"), ["target.benchmark=classes", "target.per_class=4"])
    assert plan_lines(classes, [stages(True, 1.0)])[0].startswith(
        "bundled: 2,000 questions of classes from drawn images, 4 of each class, prior"
    )
