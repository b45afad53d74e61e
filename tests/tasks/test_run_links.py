"""Links to trainings, and what they leave alone."""

from pathlib import Path

from holdfast.config.refs import DataRef
from holdfast.config.results import FinishedStudy, RunRecord
from holdfast.config.study import Study
from tasks.run_links import link_runs

ARM = [{"method": "sft", "source": "answers"}]


def finished(root: Path) -> FinishedStudy:
    """A study of two arms whose trainings have a directory each."""
    study = Study.model_validate({"name": "s", "arms": {"a": ARM, "b": ARM}})
    places = {arm: root / "mlruns" / arm for arm in study.arms}
    for place in places.values():
        place.mkdir(parents=True, exist_ok=True)
    runs = tuple(
        RunRecord(kind="train", arm=arm, replicate=1, path=str(place), digest="d", seconds=1.0)
        for arm, place in places.items()
    )
    return FinishedStudy(study=study, data=DataRef(path=root, digest="d"), runs=runs)


def test_each_arm_has_a_link_that_is_made_anew(tmp_path: Path):
    links = [tmp_path / "runs" / "s" / arm for arm in ("a", "b")]
    for _ in range(2):
        assert link_runs(tmp_path, finished(tmp_path)) == links
    assert [link.resolve() for link in links] == [tmp_path / "mlruns" / arm for arm in ("a", "b")]


def test_a_directory_where_a_link_would_be_stays(tmp_path: Path):
    """As a copy that follows links leaves them."""
    (copied := tmp_path / "runs" / "s" / "a").mkdir(parents=True)
    (copied / "mine.txt").touch()
    assert link_runs(tmp_path, finished(tmp_path)) == [tmp_path / "runs" / "s" / "b"]
    assert (copied / "mine.txt").is_file()
