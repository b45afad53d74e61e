from pathlib import Path

import pytest
from synthetic_studies import Shape, Truth, compare_job, finished_study

from flows.compare import _only, merged, require_predictable
from holdfast.analysis.settings import places
from holdfast.analysis.study import analyse
from holdfast.config.methods import SFT
from holdfast.config.study import Study
from holdfast.errors import UserError


def test_trainings_of_one_study_are_its_arms_again(tmp_path: Path):
    whole = finished_study(tmp_path, {"rft": Truth(), "answers": Truth(), "self": Truth()}, Shape(target=4, prior=4))
    runs = {run.run_id: run for run in whole.runs if run.kind == "train" and run.replicate == 1}
    wanted = {run_id: run.arm for run_id, run in runs.items() if run.arm in ("rft", "answers")}
    [found] = merged([_only(whole, run_id) for run_id in wanted])
    assert set(found.study.arms) == {"rft", "answers"}
    assert {(run.arm, run.replicate) for run in found.runs if run.arm} == {("rft", 1), ("answers", 1)}
    assert {(one.arm, one.replicate) for one in found.evaluated} == {(None, 0), ("rft", 1), ("answers", 1)}
    assert len(found.evaluated) == len(set(found.evaluated))
    assert merged([whole]) == (whole,)


def test_a_training_on_the_rollouts_of_another_arm_is_compared_without_it(tmp_path: Path):
    whole = finished_study(tmp_path, {"rft": Truth(), "rollouts": Truth()}, Shape(target=4, prior=4))
    learner = SFT(method="sft", source={"kind": "rollouts", "arm": "rft"})
    study = whole.study.model_copy(update={"arms": {**whole.study.arms, "rollouts": (learner,)}})
    [run] = [run for run in whole.runs if (run.kind, run.arm, run.replicate) == ("train", "rollouts", 1)]
    found = _only(whole.model_copy(update={"study": study}), run.run_id)
    assert Study.model_validate_json(found.study.model_dump_json()) == found.study
    assert {one.arm for one in found.evaluated} == {None, "rollouts"}
    analysis = analyse(compare_job(found))
    assert list(analysis.arms.arm) == ["rollouts"]


def test_a_study_that_was_changed_and_run_again_is_another_study(tmp_path: Path):
    whole = finished_study(tmp_path, {"rft": Truth()}, Shape(target=4, prior=4))
    again = whole.model_copy(
        update={"runs": tuple(run.model_copy(update={"run_id": f"again {run.run_id}"}) for run in whole.runs)}
    )
    assert merged([whole, again]) == (whole, again)
    assert [place.study for place in places([whole, again])] == [whole.study.name, f"{whole.study.name} (2)"]


def test_a_study_of_a_sweep_that_is_named_twice_comes_once_and_a_study_may_bear_the_sweeps_name(tmp_path: Path):
    whole = finished_study(tmp_path, {"rft": Truth()}, Shape(target=4, prior=4))
    members = [
        whole.model_copy(
            update={
                "levels": {"seed": str(seed)},
                "study": whole.study.model_copy(update={"name": f"s-{seed}", "sweep": whole.study.name, "seed": seed}),
            }
        )
        for seed in (1, 2)
    ]
    named = members[0].model_copy(update={"levels": {}})
    assert merged([named, *members]) == tuple(members)
    found = places([whole, *members])
    own, sweep = whole.study.name, f"{whole.study.name} (sweep)"
    assert [(place.setting, place.draw) for place in found] == [
        (f"study={own}", ""),
        (f"study={sweep}", "seed=1"),
        (f"study={sweep}", "seed=2"),
    ]


def test_predictors_of_what_cannot_be_measured_are_refused_before_anything_runs(tmp_path: Path):
    whole = finished_study(tmp_path, {"rft": Truth()}, Shape(target=4, prior=4))
    there = whole.model_copy(update={"data": whole.data.model_copy(update={"path": tmp_path})})
    require_predictable([there])
    gone = there.data.model_copy(update={"path": tmp_path / "gone"})
    with pytest.raises(UserError, match="`holdfast data FILE` makes it"):
        require_predictable([there, there.model_copy(update={"data": gone})])
    sampled = there.study.evaluation.model_copy(update={"drift": "sampled"})
    study = there.study.model_copy(update={"evaluation": sampled})
    with pytest.raises(UserError, match="leave out --predictors"):
        require_predictable([there.model_copy(update={"study": study})])
