"""Frontiers over settings of known truth."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic_studies import Shape, Truth, compare_job, finished_study

from holdfast.analysis.study import Analysis, analyse
from holdfast.analysis.summary import summary

SHAPE = Shape(target=100, prior=80, validation=60)
BATCH = {"low": {"batch_size": 8}, "high": {"batch_size": 16}}
"""What the settings differ in."""
SETTINGS = {
    "low": {"keeps": Truth(0.5, 0.95, 0.01), "loses": Truth(0.5, 0.7, 0.01)},
    "high": {"keeps": Truth(0.7, 0.8, 0.01), "loses": Truth(0.7, 0.3, 0.01)},
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    root = tmp_path_factory.mktemp("studies")
    studies = [
        finished_study(root / level, arms, SHAPE, {"rate": level}, name=f"made-{level}", evaluation=BATCH[level])
        for level, arms in SETTINGS.items()
    ]
    return analyse(compare_job(*studies, factors={"rate": list(SETTINGS)}))


def levels(found: Analysis, split: str) -> pd.DataFrame:
    """Score and retention by setting, arm, replicate and step, counted in the records."""
    records = found.tables.records[found.tables.records.split == split]
    keys = ["setting", "arm", "replicate", "step"]
    score = records[records.role == "target"].groupby(keys, observed=True)["score"].mean()
    prior = records[records.role == "prior"].groupby([*keys, "benchmark"], observed=True)["correct"].mean()
    prior = prior.groupby(keys, observed=True).mean()
    base = prior.xs("base", level="arm").iloc[0]
    return pd.DataFrame({"score": score, "retention": prior / base}).reset_index()


def test_a_frontier_is_the_best_of_all_settings_chosen_on_validation_questions(found: Analysis):
    assert found.fronts is not None
    seen, tested = levels(found, "validation"), levels(found, "test")
    for point in found.fronts.curves[5::7].itertuples():
        kept = []
        for replicate in (1, 2, 3):
            base = seen[seen.arm == "base"].iloc[:1]
            own = pd.concat([base, seen[(seen.arm == point.arm) & (seen.replicate == replicate)]])
            able = own[own.score >= point.score - 1e-9].sort_values(["retention", "score"], ascending=False)
            place = ["setting", "arm", "replicate", "step"]
            kept.append(tested.set_index(place).retention[tuple(able.iloc[0][place])])
        assert point.retention == pytest.approx(np.mean(kept))
        assert point.retention_low <= point.retention <= point.retention_high


def test_an_arm_is_as_skilled_as_its_least_skilled_replicate(found: Analysis):
    assert found.fronts is not None
    seen = levels(found, "validation")
    top = seen[seen.arm == "keeps"].groupby("replicate").score.max().min()
    areas = found.fronts.areas.set_index("arm")
    assert 0 <= top - areas.top["keeps"] < 0.01
    assert areas.common["keeps"] == areas.top.min()
    assert areas.settings.tolist() == [2, 2]


def test_the_area_is_the_mean_of_the_frontier_up_to_the_common_skill(found: Analysis):
    assert found.fronts is not None
    areas, curves = found.fronts.areas.set_index("arm"), found.fronts.curves
    for arm in SETTINGS["low"]:
        own = curves[(curves.arm == arm) & (curves.score <= areas.common[arm] + 1e-9)]
        assert areas.area[arm] == pytest.approx(own.retention.mean())
        assert areas.retention[arm] == pytest.approx(own.retention.iloc[-1])


def test_who_keeps_more_at_every_skill_is_better(found: Analysis):
    assert found.fronts is not None
    [row] = found.fronts.verdicts.itertuples()
    assert (row.a, row.b, row.verdict) == ("keeps", "loses", "better")
    assert summary(found)["fronts"]["verdicts"][0]["verdict"] == "better"


def test_one_setting_or_other_data_has_no_frontier_over_settings(tmp_path: Path):
    alone = finished_study(tmp_path / "a", SETTINGS["low"], Shape(replicates=1))
    assert analyse(compare_job(alone)).fronts is None
    seeds = [
        finished_study(tmp_path / f"s{seed}", SETTINGS["low"], Shape(replicates=1), {"seed": str(seed)}, seed=seed)
        for seed in (1, 2)
    ]
    assert analyse(compare_job(*seeds, factors={"seed": ["1", "2"]})).fronts is None


def test_a_replicate_that_some_setting_lacks_is_left_out(tmp_path: Path):
    studies = [
        finished_study(
            tmp_path / level,
            arms,
            Shape(replicates=count),
            {"rate": level},
            name=f"made-{level}",
            evaluation=BATCH[level],
        )
        for (level, arms), count in zip(SETTINGS.items(), (3, 2), strict=True)
    ]
    found = analyse(compare_job(*studies, factors={"rate": list(SETTINGS)})).fronts
    assert found is not None
    assert set(found.areas.replicates) == {2}
