"""What a study of several targets says, and what is refused in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.commands.experiment import load_experiment, load_study
from flows.jobs import Start, train_job
from holdfast.benchmarks.dataset import make_data, shard_names
from holdfast.config.images import World
from holdfast.config.jobs import MakeData
from holdfast.config.prior import Prior
from holdfast.config.refs import DataRef, FileRef, ModelRef
from holdfast.data.shards import read_questions, shard_paths
from holdfast.errors import UserError
from tasks.data import data_directory, data_job
from tasks.stage_cache import key_content

SFT = {"method": "sft", "source": "answers"}
SMALL = {"train": 6, "validation": 2, "test": 3}
CONTENT = {
    "name": "s",
    "targets": {"counting": SMALL, "jigsaw": SMALL, "classes": SMALL},
    "prior": [{"benchmark": "color", "questions": 2, "validation": 2}],
    "arms": {"sft": [SFT | {"target": 1}, SFT | {"target": "jigsaw"}, SFT | {"target": 3}]},
}


def written(tmp_path: Path, **changes: Any) -> Path:
    file = tmp_path / "s.yaml"
    file.write_text(yaml.safe_dump(CONTENT | changes, sort_keys=False))
    return file


REFUSED = {
    "a stage without a target": ({"arms": {"a": [SFT]}}, "arms.a.0.target: say which it learns: counting, jigsaw"),
    "an unknown target": ({"arms": {"a": [SFT | {"target": "chess"}]}}, "'chess' is none of counting, jigsaw, classes"),
    "a place that is none": ({"arms": {"a": [SFT | {"target": 4}]}}, "nor a place from 1 to 3"),
    "target beside targets": ({"target": {"benchmark": "spatial"}}, "leave `target` out"),
    "an order that leaves one out": ({"order": ["counting", "jigsaw"]}, "order: name each of counting, jigsaw"),
    "two names": ({"targets": {"counting": {"benchmark": "spatial"}}}, "targets: counting: says `benchmark: spatial`"),
    "a choice of samples": (
        {"arms": {"a": [SFT | {"target": 1, "select": {"by": "loss", "drop": 0.2}}]}},
        "arms.a.0.select: chooses in studies of one target",
    ),
    "a prior of a target's name": ({"prior": [{"path": "x.jsonl", "name": "classes"}]}, "is the target's name"),
    "rewards that a target has not": (
        {"arms": {"a": [{"method": "grpo", "rewards": {"adjacency": 1}, "target": "counting"}]}},
        "arms.a.0.rewards.adjacency",
    ),
}


@pytest.mark.parametrize(("changes", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_a_sequence_is_told_in_one_sentence(changes: dict, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as told:
        load_study(written(tmp_path, **changes))
    assert said in str(told.value)
    assert "\n" not in str(told.value)


def test_a_target_needs_targets_to_be_chosen_from(tmp_path: Path) -> None:
    content = {"name": "s", "arms": {"a": [SFT | {"target": 2}]}}
    file = tmp_path / "s.yaml"
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=r"arms\.a\.0\.target: 2 is none of jigsaw"):
        load_study(file)


def test_the_order_is_crossed_by_vary_and_changes_no_data(tmp_path: Path) -> None:
    orders = {"up": ["counting", "jigsaw", "classes"], "down": ["classes", "jigsaw", "counting"]}
    vary = {"order": {name: {"order": order} for name, order in orders.items()}}
    sweep = load_experiment(written(tmp_path, vary=vary))
    studies = [member.study for member in sweep.members]
    learned = [[study.learned_by(stage) for stage in study.arms["sft"]] for study in studies]
    assert learned == [["counting", "jigsaw", "classes"], ["classes", "jigsaw", "counting"]]
    assert len({data_directory("s", data_job(study), tmp_path) for study in studies}) == 1


def test_every_target_has_shards_of_its_own(tmp_path: Path) -> None:
    study = load_study(written(tmp_path))
    prior = (Prior(benchmark="color", questions=2, validation=2),)
    job = MakeData(images=World(), target=study.target, targets=study.targets, prior=prior)
    (tmp_path / "data").mkdir()
    notes = make_data(job, tmp_path / "data")
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == shard_names(job)
    assert notes["questions"]["target_train-counting"] == 6
    paths = shard_paths(tmp_path / "data", "test")
    assert [read_questions(path)[0].benchmark for path in paths] == ["classes", "counting", "jigsaw", "color"]
    data, ref = DataRef(path=tmp_path / "data", digest="d"), ModelRef(path="m", digest="m")
    start = Start(data=data, base=ref, references=FileRef(path=tmp_path, digest="r"))
    jobs = [train_job(study, stage, ref, start, 0) for stage in study.arms["sft"]]
    assert [job.questions.path.name for job in jobs] == [f"target_train-{name}.parquet" for name in study.targets]


def test_studies_of_one_target_keep_their_keys(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(yaml.safe_dump({"name": "s", "arms": {"a": [SFT]}}))
    content = key_content(load_study(file))
    assert not {"targets", "order"} & set(content)
    assert "target" not in content["arms"]["a"][0]
    assert "targets" not in key_content(data_job(load_study(file)))
