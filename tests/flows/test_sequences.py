"""A whole sequence through the command line: data of several targets, mitigations, the matrix and its page."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
from repositories import CommandResult, holdfast, new_repository

from holdfast.config.refs import ModelRef

pytestmark = pytest.mark.slow

SMALL = {"train": 12, "validation": 2, "test": 4}
SFT = {"method": "sft", "source": "answers", "trainer": {"max_steps": 2, "per_device_train_batch_size": 4}}
GRPO = {
    "method": "grpo",
    "trainer": {"max_steps": 2, "per_device_train_batch_size": 4, "num_generations": 2, "max_completion_length": 16},
    "replay": {"share": 0.5, "of": ["targets"]},
}
SEQUENCE = {
    "name": "tiny",
    "targets": {"counting": SMALL | {"difficulty": 0}, "classes": SMALL | {"classes": 2}},
    "prior": [{"benchmark": "color", "questions": 4, "validation": 2, "train": 6}],
    "arms": {
        "replay": [
            SFT | {"target": row, "replay": {"share": 0.5}, "ewc": {"weight": 1, "samples": 2}} for row in (1, 2)
        ],
        "rft": [GRPO | {"target": row, "kl": {"weight": 0.1, "prompts": "prior", "batch": 2}} for row in (1, 2)],
        "between": [{"method": "interpolate", "arm": "replay", "shares": [0.25, 0.5]}],
    },
    "evaluation": {"keep": 0.99, "every": 0.99, "max_new_tokens": 16, "drift_prompts": 2, "validation": 2},
    "influence": {"every": 0.99, "samples": 2, "questions": 2},
    "compute": {"device": "cpu"},
}


class Ran(NamedTuple):
    root: Path
    first: CommandResult
    again: CommandResult


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, tiny_model: ModelRef) -> Ran:
    """Run twice."""
    root = tmp_path_factory.mktemp("repository")
    new_repository(root, {**SEQUENCE, "model": {"path": tiny_model.path}})
    with tempfile.TemporaryDirectory(prefix="hf") as places:
        return Ran(root, *(holdfast(root, places, "study", "tiny.yaml") for _ in range(2)))


def test_the_matrix_has_every_stage_and_benchmark(ran: Ran) -> None:
    assert ran.first.code == 0, ran.first.stderr
    place = ran.first.report.parent
    ends = pd.read_csv(place / "figures" / "matrix.csv", dtype={"replicate": str})
    own = ends[(ends.arm == "rft") & (ends.replicate == "1")]
    assert own.groupby("stage_step").benchmark.count().to_dict() == {0: 3, 2: 6}
    assert own[own.step == 4].learned.unique().tolist() == ["classes"]
    told = json.loads((place / "summary.json").read_text())["sequence"]
    assert {row["measure"] for row in told["replay"]["measures"]} >= {"MFT", "BWT", "FWT", "FM", "max forgetting"}
    page = ran.first.report.read_text()
    assert "The sequence of targets" in page
    assert "Measures of continual learning" in page


def test_models_between_are_compared_as_an_arm_of_their_own(ran: Ran) -> None:
    path = pd.read_csv(ran.first.report.parent / "figures" / "curves.csv", dtype={"replicate": str})
    own = path[(path.arm == "between") & (path.replicate == "1")]
    assert own.step.tolist() == [0, 1, 2]
    assert "between" not in json.loads((ran.first.report.parent / "summary.json").read_text())["sequence"]


def test_every_stage_is_traced_against_all_targets(ran: Ran) -> None:
    changes = pd.read_csv(ran.first.report.parent / "figures" / "influence.csv")
    assert changes.groupby(["arm", "stage"]).benchmark.agg(set).to_dict() == {
        (arm, stage): {"counting", "classes", "color"} for arm in ("replay", "rft") for stage in (0, 1)
    }


def test_a_sequence_is_found_again(ran: Ran) -> None:
    assert "Everything is there" in ran.again.stderr
