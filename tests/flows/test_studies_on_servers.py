"""Whole studies whose runs are on an MLflow server: a process of its own, with artifacts and a database behind it."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
from repositories import CommandResult, holdfast, new_repository
from servers import POSTGRES, mlflow_server, postgres

from holdfast.config.refs import ModelRef
from tasks.tracking import Store

TRAINER = {"max_steps": 2, "per_device_train_batch_size": 4}
STUDY = {
    "name": "tiny",
    "target": {"train": 8, "validation": 2, "test": 4},
    "prior": [{"benchmark": "color", "questions": 4}],
    "arms": {
        "twice": [
            {"method": "sft", "source": "answers", "trainer": TRAINER},
            {"method": "sft", "source": "answers", "trainer": TRAINER},
        ],
    },
    "evaluation": {"keep": 1, "every": 1, "max_new_tokens": 16, "drift_prompts": 2},
    "influence": {"every": 1, "samples": 2, "questions": 2},
    "compute": {"device": "cpu"},
}
PASSWORD = "correct-horse"

pytestmark = pytest.mark.slow


class Served(NamedTuple):
    uri: str
    first: CommandResult
    second: CommandResult
    elsewhere: CommandResult
    """The same study in another clone, with one stage more."""
    root: Path


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_model: ModelRef):
    if request.param == "postgresql" and not POSTGRES:
        pytest.skip("PostgreSQL is not installed below /usr/lib/postgresql")
    with ExitStack() as stack:
        database = ""
        if request.param == "postgresql":
            # A directory that the user postgres may enter.
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hf")))
            database = stack.enter_context(postgres(place, PASSWORD))
        uri = stack.enter_context(mlflow_server(tmp_path_factory.mktemp("server"), database))
        yield from _studied(uri, tmp_path_factory.mktemp("repositories"), tiny_model)


def _studied(uri: str, place: Path, tiny_model: ModelRef) -> Iterator[Served]:
    root = place / "first"
    new_repository(root, {**STUDY, "model": {"path": tiny_model.path}})
    with tempfile.TemporaryDirectory(prefix="hf") as places:
        first, second = (holdfast(root, places, "study", "tiny.yaml", MLFLOW_TRACKING_URI=uri) for _ in range(2))
        clone = place / "second"
        shutil.copytree(root, clone, ignore=shutil.ignore_patterns("mlruns", "data", "cache", ".prefect"))
        more = "arms.once=[{method: sft, source: answers, trainer: {max_steps: 1, per_device_train_batch_size: 4}}]"
        elsewhere = holdfast(clone, places, "study", "tiny.yaml", "--set", more, MLFLOW_TRACKING_URI=uri)
        yield Served(uri, first, second, elsewhere, root)


@pytest.fixture
def store(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", served.uri)
    return Store(tmp_path)


def test_a_study_on_a_server_ends_with_its_report(served: Served, store: Store):
    assert served.first.code == 0, served.first.stderr
    assert "Traceback" not in served.first.stderr
    assert served.first.report.is_file()
    studies = store.search("tags.`holdfast.kind` = 'study'")
    assert {run.info.status for run in studies} == {"FINISHED"}
    assert all((store.artifacts.of(run) / "report.html").is_file() for run in studies)
    assert not store.search("attributes.status = 'RUNNING'")


def test_its_aliases_are_set_and_resolve_to_the_files_of_a_checkpoint(served: Served, store: Store):
    import mlflow

    aliases = json.loads((served.first.report.parent / "summary.json").read_text())["aliases"]
    assert set(aliases) == {"best-skill", "best-retention"}
    for alias in aliases:
        files = Path(mlflow.artifacts.download_artifacts(f"models:/tiny@{alias}"))
        assert (files / "config.json").is_file()
        assert list(files.glob("*.safetensors"))


def test_the_same_study_again_finds_every_stage(served: Served):
    assert served.second.code == 0, served.second.stderr
    assert "To do: 0" in served.second.stderr or "Everything is there" in served.second.stderr
    assert "started" not in served.second.stderr.replace("compare: started", "")


def test_another_clone_finds_what_this_one_trained_and_fetches_its_checkpoints(served: Served):
    assert served.elsewhere.code == 0, served.elsewhere.stderr
    for name in ("twice", "twice 1", "twice influence"):
        assert f"{name}: found" in served.elsewhere.stderr
    assert "\nevaluate: started" not in served.elsewhere.stderr, "what the base answered is found by its units"
    assert "once: started" in served.elsewhere.stderr
    copies = served.root.parent / "second" / "mlruns" / "cache"
    assert list(copies.glob("*/checkpoints/*/*.safetensors"))


def test_a_past_training_on_the_server_is_shown_and_traced_elsewhere(served: Served, store: Store, tmp_path: Path):
    trained = store.search("tags.`holdfast.kind` = 'train' and tags.`holdfast.arm` = 'twice'")[0].info.run_id
    with tempfile.TemporaryDirectory(prefix="hf") as places:
        shown = holdfast(tmp_path, places, "show", trained, MLFLOW_TRACKING_URI=served.uri)
    assert shown.code == 0, shown.stderr
    assert "target/jigsaw/score" in shown.stdout
    assert "Downloading" not in shown.stderr
