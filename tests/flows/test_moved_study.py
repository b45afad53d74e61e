"""A whole study goes to another clone with a store of its own, where the same command trains nothing."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
from repositories import CommandResult, holdfast, new_repository
from servers import mlflow_server

from holdfast.config.refs import ModelRef
from tasks.tracking import Store

TRAINER = {"max_steps": 2, "per_device_train_batch_size": 4}
ROLLOUTS = {"kind": "rollouts", "arm": "answers", "keep": "all", "per_prompt": 1}
STUDY = {
    "name": "tiny",
    "target": {"train": 8, "validation": 2, "test": 4},
    "prior": [{"benchmark": "color", "questions": 4}],
    "arms": {
        "answers": [
            {"method": "sft", "source": "answers", "trainer": TRAINER, "lora": {"target_modules": "all-linear"}}
        ],
        "rollouts": [{"method": "sft", "source": ROLLOUTS, "trainer": TRAINER}],
    },
    "replicates": 2,
    "evaluation": {"keep": 1, "every": 1, "max_new_tokens": 16, "drift_prompts": 2},
    "influence": {"every": 1, "samples": 2, "questions": 2},
    "compute": {"device": "cpu"},
}

pytestmark = pytest.mark.slow


class Moved(NamedTuple):
    first: CommandResult
    exported: CommandResult
    imported: CommandResult
    verified: CommandResult
    again: CommandResult
    """The study in the clone to which it was moved."""
    here: Path
    there: Path
    uri: str
    """The server with that clone's runs, if it has one."""


@pytest.fixture(scope="module", params=["to mlruns/", "to a server"])
def moved(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_model: ModelRef
) -> Iterator[Moved]:
    place = tmp_path_factory.mktemp("repositories")
    here, there, file = place / "here", place / "there", place / "tiny.tar.zst"
    with ExitStack() as stack:
        places = stack.enter_context(tempfile.TemporaryDirectory(prefix="hf"))
        new_repository(here, {**STUDY, "model": {"path": tiny_model.path}})
        first = holdfast(here, places, "study", "tiny.yaml")
        exported = holdfast(here, places, "export", "tiny", str(file))
        shutil.copytree(
            here, there, ignore=shutil.ignore_patterns("mlruns", "data", "data.dvc", "cache", ".prefect", "runs")
        )
        # What is not there any more cannot be what is found.
        away = here.rename(place / "away")
        server = {}
        if request.param == "to a server":
            server["MLFLOW_TRACKING_URI"] = stack.enter_context(mlflow_server(tmp_path_factory.mktemp("server")))
        imported = holdfast(there, places, "import", str(file), **server)
        verified = holdfast(there, places, "verify", "tiny", **server)
        again = holdfast(there, places, "study", "tiny.yaml", **server)
        yield Moved(first, exported, imported, verified, again, away, there, server.get("MLFLOW_TRACKING_URI", ""))


def test_the_commands_say_what_they_did(moved: Moved):
    assert moved.first.code == 0, moved.first.stderr
    assert moved.exported.code == 0, moved.exported.stderr
    assert moved.imported.code == 0, moved.imported.stderr
    assert "`holdfast study FILE` finds it" in moved.imported.stdout


def test_all_that_it_recorded_holds_there(moved: Moved):
    assert moved.verified.code == 0, moved.verified.stdout + moved.verified.stderr


def test_the_same_command_trains_and_asks_nothing(moved: Moved):
    assert moved.again.code == 0, moved.again.stderr
    assert "Everything is there" in moved.again.stderr
    started = [line for line in moved.again.stderr.splitlines() if line.endswith(": started")]
    assert started == ["compare: started"], "a report names runs, and they have new ids"


def test_the_report_has_the_same_table(moved: Moved):
    table = moved.first.stdout.partition("Report:")[0]
    assert table.strip()
    assert moved.again.stdout.partition("Report:")[0] == table


def test_the_arms_are_linked(moved: Moved):
    links = sorted(path.relative_to(moved.there).as_posix() for path in (moved.there / "runs").glob("tiny/*/*"))
    expected = [f"runs/tiny/{arm}/replicate-{number}" for arm in ("answers", "rollouts") for number in (1, 2)]
    assert links == ([] if moved.uri else expected)
    for link in links:
        assert list((moved.there / link).glob("checkpoints/*/*.safetensors"))


def test_nothing_of_it_is_garbage(moved: Moved):
    settings = {"MLFLOW_TRACKING_URI": moved.uri} if moved.uri else {}
    with tempfile.TemporaryDirectory(prefix="hf") as places:
        said = holdfast(moved.there, places, "gc", **settings)
        doctor = holdfast(moved.there, places, "doctor", **settings)
    assert said.code == 0, said.stderr
    assert "checkpoints of" not in said.stdout
    assert "tiny" in next(line for line in doctor.stdout.splitlines() if line.split()[1] == "studies")


def test_metrics_and_models_are_those_of_the_first_store(moved: Moved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    before = Store(moved.here)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", moved.uri or f"sqlite:///{moved.there}/mlruns/mlflow.db")
    after = Store(moved.there)
    trained = {run.data.tags["holdfast.stage_key"]: run for run in before.search("tags.`holdfast.kind` = 'train'")}
    found = {run.data.tags["holdfast.stage_key"]: run for run in after.search("tags.`holdfast.kind` = 'train'")}
    assert len(trained) == 4
    assert trained.keys() == found.keys()
    for key, run in trained.items():
        assert found[key].data.metrics.keys() == run.data.metrics.keys()
        for name in run.data.metrics:
            histories = [
                [
                    (one.step, repr(one.value), one.timestamp)
                    for one in store.client.get_metric_history(one_run.info.run_id, name)
                ]
                for store, one_run in ((before, run), (after, found[key]))
            ]
            assert sorted(histories[0]) == sorted(histories[1]), name
        assert len(after.models.of(found[key])) == len(before.models.of(run)) > 0
