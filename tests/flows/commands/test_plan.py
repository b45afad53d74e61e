from pathlib import Path

import pytest

from flows.commands.experiment import load_study
from flows.commands.plan import PlannedStage, plan_lines, remaining, rough_time, stage_ids

BUNDLED = load_study(Path("experiments/bundled.yaml"), ["compute.parallel=2", "compute.device=cpu"])


def stages(found: bool, seconds: float | None) -> list[PlannedStage]:
    return [PlannedStage(stage_id, found, seconds) for stage_id in stage_ids(BUNDLED)]


def test_a_plan_names_every_stage_of_the_default_study():
    assert [stage_id[:2] for stage_id in stage_ids(BUNDLED)] == [
        ("data", None),
        ("base", None),
        ("evaluate", None),
        ("train", "rft"),
        ("influence", "rft"),
        ("sample", "self"),
        ("train", "self"),
        ("influence", "self"),
        ("train", "teacher"),
        ("influence", "teacher"),
        ("train", "answers"),
        ("influence", "answers"),
        ("select", "aligned"),
        ("train", "aligned"),
        ("influence", "aligned"),
        ("sample", "rollouts"),
        ("train", "rollouts"),
        ("influence", "rollouts"),
    ]


def test_arms_share_the_time_and_common_stages_do_not():
    # Three common stages, then fifteen of the arms, two at a time.
    assert remaining(BUNDLED, stages(False, 10.0)) == 3 * 10 + 15 * 10 / 2


def test_no_study_is_faster_than_its_longest_chain():
    long = [
        PlannedStage(stage.stage_id, False, 100.0 if stage.stage_id == ("train", "rft", 0) else 1.0)
        for stage in stages(False, 1.0)
    ]
    # rft and its influence, then samples of it, the training on them, and its influence.
    assert remaining(BUNDLED, long) == 3 + 104


def test_a_stage_nobody_knows_leaves_the_time_unknown():
    assert remaining(BUNDLED, stages(False, None)) is None
    assert "time unknown" in plan_lines(BUNDLED, [stages(False, None)])[-1]


def test_found_stages_take_no_time():
    assert remaining(BUNDLED, stages(True, None)) == 0
    assert "Everything is there" in plan_lines(BUNDLED, [stages(True, None)])[-1]


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
