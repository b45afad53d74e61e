"""A whole sweep through the command line: its studies, their runs in MLflow, and the report on all of them."""

import json
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest
from repositories import CommandResult, holdfast, new_repository

from holdfast.config.refs import ModelRef
from tasks.tracking import Store

pytestmark = pytest.mark.slow

SFT = {"method": "sft", "source": "answers", "trainer": {"max_steps": 2, "per_device_train_batch_size": 4}}
SWEEP = {
    "name": "tiny",
    "target": {"benchmark": "counting", "train": 16, "validation": 2, "test": 4},
    "prior": [{"benchmark": "color", "questions": 4}],
    "arms": {"sft": [SFT]},
    "evaluation": {"keep": 1, "every": 1, "max_new_tokens": 16, "drift_prompts": 2},
    "compute": {"device": "cpu"},
    "vary": {
        "difficulty": {"easy": {"target": {"difficulty": 0}}, "hard": {"target": {"difficulty": 1}}},
        "samples": {
            "1": {"target": {"per_class": 1}},
            "all": {"arms": {"broken": [{**SFT, "source": {"kind": "rollouts", "arm": "sft", "prompts": 2}}]}},
        },
    },
}
STUDIES = ("tiny-easy-1", "tiny-easy-all", "tiny-hard-1", "tiny-hard-all")


class Swept(NamedTuple):
    root: Path
    first: CommandResult
    second: CommandResult


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, tiny_model: ModelRef) -> Swept:
    """A sweep that is run twice; its arm `broken` learns from right samples, of which a random model has none."""
    root = tmp_path_factory.mktemp("repository")
    new_repository(root, {**SWEEP, "model": {"path": tiny_model.path}})
    with tempfile.TemporaryDirectory(prefix="hf") as places:
        first, second = (holdfast(root, places, "study", "tiny.yaml") for _ in range(2))
    return Swept(root, first, second)


@pytest.fixture
def store(swept: Swept, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Store(swept.root)


def test_a_sweep_ends_with_a_report_on_all_its_studies(swept: Swept):
    assert "4 studies, varying difficulty (easy, hard), samples (1, all)" in swept.first.stderr
    assert swept.first.stderr.count("compare: started") == len(STUDIES) + 1
    summary = json.loads((swept.first.report.parent / "summary.json").read_text())
    assert summary["study"] == "tiny"


def test_an_arm_that_fails_in_one_study_is_named_with_it_and_costs_no_other_arm(swept: Swept):
    assert swept.first.code == 1
    assert "tiny-easy-all: broken failed" in swept.first.stderr
    assert "Traceback" not in swept.first.stderr


def test_studies_lie_below_their_sweep_in_one_experiment_of_mlflow(store: Store):
    runs = store.search("")
    sweeps = [run for run in runs if run.data.tags["holdfast.kind"] == "sweep"]
    below = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == sweeps[-1].info.run_id]
    studies = {run.info.run_name: run.info.status for run in below if run.data.tags["holdfast.kind"] == "study"}
    assert studies == {name: "FAILED" if name.endswith("all") else "FINISHED" for name in STUDIES}
    assert len({run.info.experiment_id for run in runs}) == 1
    trained = [run for run in runs if run.data.tags["holdfast.kind"] == "train"]
    assert {run.data.tags["holdfast.study"] for run in trained} == {*STUDIES}


def test_the_same_sweep_again_trains_nothing(swept: Swept):
    assert swept.second.stderr.count(" sft: found") == 4
    assert " sft: started" not in swept.second.stderr


def test_nothing_is_left_running(store: Store):
    assert not store.search("attributes.status = 'RUNNING'")
