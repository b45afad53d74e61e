"""A budget: what is refused before anything runs, what is left out, and what goes on afterwards."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from repositories import holdfast, new_repository

from flows.budget import OverBudget, Unbegun, admission, deadline, only_budget, require_room
from flows.commands.experiment import load_study
from holdfast.config.jobs import Train
from holdfast.config.refs import ModelRef
from holdfast.errors import UserError
from tasks.stage import Context, Position

SFT = {"method": "sft", "source": "answers", "trainer": {"max_steps": 2, "per_device_train_batch_size": 4}}
STUDY = {
    "name": "tiny",
    "target": {"train": 8, "validation": 2, "test": 2},
    "prior": [{"benchmark": "color", "questions": 2, "validation": 2}],
    "arms": {"short": [SFT], "long": [{**SFT, "trainer": {**SFT["trainer"], "max_steps": 3}}]},
    "evaluation": {"keep": 1, "every": 1, "max_new_tokens": 16},
    "compute": {"device": "cpu"},
}
LONG = ("--set", "arms.long.0.trainer.max_steps=100000")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def context(root: Path, budget: float, left: float) -> Context:
    study = load_study(Path("experiments/bundled.yaml"), [f"budget={budget}"])
    return Context(root=root, study=study, study_run="", ends=time.monotonic() + left)


def test_a_budget_without_room_for_the_shortest_training_is_refused(root: Path):
    fits = load_study(Path("experiments/bundled.yaml"), ["budget=1"])
    require_room([fits], root)
    with pytest.raises(UserError, match=r"budget: 0.001 h has room for no training; the shortest, arms.answers, takes"):
        require_room([fits, fits.model_copy(update={"budget": 0.001})], root)


def test_a_training_begins_if_it_and_its_evaluation_end_in_time(root: Path, train_job: Callable[..., Train]):
    job, position = train_job(SFT), Position("answers", 2, 0)
    for left, fits in ((3600.0, True), (5.0, False), (-1.0, False)):
        given = context(root, 1, left)
        admit = admission(job, position, given)
        assert admit is not None
        if fits:
            admit()
        else:
            with pytest.raises(OverBudget, match="left out by the budget of 1 h: it takes about"):
                admit()


def test_without_a_budget_nothing_is_asked(root: Path, train_job: Callable[..., Train]):
    assert deadline(load_study(Path("experiments/bundled.yaml"))) is None
    given = context(root, 1, 1).model_copy(update={"ends": None})
    assert admission(train_job(SFT), Position("answers", 1, 0), given) is None


def test_only_what_the_budget_left_out_is_no_failure():
    assert only_budget({"a": OverBudget(), "b": Unbegun()})
    assert not only_budget({"a": OverBudget(), "b": RuntimeError()})


@pytest.mark.slow
def test_what_a_budget_leaves_out_is_named_and_the_same_command_goes_on(tmp_path: Path, tiny_model: ModelRef):
    new_repository(tmp_path, {**STUDY, "model": {"path": tiny_model.path}})
    with tempfile.TemporaryDirectory(prefix="hf") as places:
        assert holdfast(tmp_path, places, "study", "tiny.yaml").code == 0
        # A longer training is known to take longer by how long it took.
        some = holdfast(tmp_path, places, "study", "tiny.yaml", *LONG, "--set", "budget=0.05")
        assert some.code == 0, some.stderr
        assert "Left out by the budget: 1 trainings" in some.stderr
        assert "long: left out by the budget of 0.05 h" in some.report.read_text()
        short = ("--set", "arms.long.0.trainer.max_steps=4")
        whole = holdfast(tmp_path, places, "study", "tiny.yaml", *short)
        assert whole.code == 0, whole.stderr
        assert "short: found" in whole.stderr
        assert "left out" not in whole.report.read_text()
