from pathlib import Path

from synthetic_studies import Shape, Truth, finished_study

from flows.compare import _only, merged


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
