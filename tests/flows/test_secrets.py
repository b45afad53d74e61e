"""Secrets are planted wherever a user may have some; then everything that a study wrote is searched for them."""

import base64
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest
from repositories import CommandResult, holdfast, new_repository
from servers import POSTGRES, mlflow_server, postgres, prefect_server

from holdfast.config.refs import ModelRef

pytestmark = pytest.mark.slow

ENVIRONMENT = {
    "REWARD_API_KEY": "planted-reward-key",
    "HF_TOKEN": "hf_plantedforthehub",
    "AWS_SECRET_ACCESS_KEY": "planted/aws+secret=",
    "SOME_PASSWORD": "planted in the environment",
}
MLFLOW, PREFECT, DVC, BASIC = "planted-at-mlflow", "planted-at-prefect", "planted-at-dvc", "planted-dvc-basic"
SECRETS = [*ENVIRONMENT.values(), MLFLOW, PREFECT, DVC, BASIC]
REWARDS = """
import os

def tells(completions, **columns):
    print("the key:", os.environ["REWARD_API_KEY"])
    return [0.5] * len(completions)

def fails(completions, **columns):
    if columns["trainer_state"].global_step:
        raise RuntimeError("no access with " + os.environ["REWARD_API_KEY"])
    return [0.5] * len(completions)
"""
TRAINER = {"max_steps": 2, "per_device_train_batch_size": 4, "num_generations": 4, "max_completion_length": 16}
STUDY = {
    "name": "tiny",
    "target": {"train": 8, "validation": 2, "test": 4},
    "prior": [{"benchmark": "color", "questions": 4}],
    "arms": {"tells": [{"method": "grpo", "trainer": TRAINER, "rewards": {"own": {"function": "own_rewards:tells"}}}]},
    "evaluation": {"keep": 1, "every": 1, "max_new_tokens": 16, "drift_prompts": 2},
    "compute": {"device": "cpu"},
}
FAILS = {"method": "grpo", "trainer": TRAINER, "rewards": {"own": {"function": "own_rewards:fails"}}}


class Done(NamedTuple):
    place: Path
    """With the repository and all servers' files."""
    study: CommandResult
    failed: CommandResult
    restored: CommandResult
    doctor: CommandResult
    refused: CommandResult


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_model: ModelRef) -> Done:
    place = tmp_path_factory.mktemp("secrets")
    root, mlflow, prefect = (place / name for name in ("repository", "mlflow", "prefect"))
    mlflow.mkdir()
    prefect.mkdir()
    new_repository(root, {**STUDY, "model": {"path": tiny_model.path}})
    (root / "own_rewards.py").write_text(REWARDS)
    remote = f"[core]\n    remote = far\n['remote \"far\"']\n    url = http://me:{DVC}@127.0.0.1:9/data\n"
    (root / ".dvc" / "config.local").write_text(f"{remote}    auth = basic\n    user = me\n    password = {BASIC}\n")
    with (
        tempfile.TemporaryDirectory(prefix="hf") as places,
        mlflow_server(mlflow) as tracking,
        prefect_server(prefect, PREFECT_SERVER_API_AUTH_STRING=f"me:{PREFECT}") as api,
    ):
        settings = {
            **ENVIRONMENT,
            "MLFLOW_TRACKING_URI": tracking.replace("://", f"://me:{MLFLOW}@"),
            "PREFECT_API_URL": api.replace("://", f"://me:{PREFECT}@"),
        }
        study = holdfast(root, places, "study", "tiny.yaml", **settings)
        failed = holdfast(root, places, "study", "tiny.yaml", "--set", f"arms.fails=[{FAILS}]", **settings)
        doctor = holdfast(root, places, "doctor", **settings)
        shutil.rmtree(root / "data")
        shutil.rmtree(root / ".dvc" / "cache")
        restored = holdfast(root, places, "data", "tiny.yaml", **settings)
        dead = {**settings, "MLFLOW_TRACKING_URI": f"http://me:{MLFLOW}@127.0.0.1:9"}
        refused = holdfast(root, places, "report", "tiny", **dead)
    return Done(place, study, failed, restored, doctor, refused)


def said(result: CommandResult) -> str:
    return result.stdout + result.stderr


def test_the_study_ran_with_every_secret_in_its_place(done: Done):
    assert done.study.code == 0, done.study.stderr
    logs = [path.read_text() for path in (done.place / "mlflow" / "artifacts").rglob("log.txt")]
    assert any("the key: ***" in log for log in logs)
    assert done.failed.code == 1
    assert "no access with ***" in done.failed.stderr
    assert "DVC's remote cannot give the data" in done.restored.stderr
    assert done.refused.code == 2


def test_no_secret_is_said(done: Done):
    for result in done[1:]:
        assert isinstance(result, CommandResult)
        for secret in SECRETS:
            assert secret not in said(result), secret


def test_no_secret_is_in_anything_that_was_written(done: Done):
    searched = [path for path in done.place.rglob("*") if path.is_file() and path.name != "config.local"]
    names = {path.name for path in searched}
    assert {"server.db", "prefect.db", "report.html", "config.json", "job.json", "log.txt", "data.dvc"} <= names
    encoded = [base64.b64encode(f"me:{word}".encode()) for word in (MLFLOW, PREFECT, DVC, BASIC)]
    for path in searched:
        content = path.read_bytes()
        for secret in (*(word.encode() for word in SECRETS), *encoded):
            assert secret not in content, (path, secret)


@pytest.mark.skipif(not POSTGRES, reason="PostgreSQL is not installed below /usr/lib/postgresql")
def test_the_password_of_a_database_is_neither_said_nor_kept(tmp_path: Path):
    with tempfile.TemporaryDirectory(prefix="hf") as place, postgres(Path(place), "planted-at-postgres") as uri:
        for address in (uri, uri.replace("planted-at-postgres", "planted-and-wrong"), f"{uri}_missing"):
            for command in (("doctor",), ("report", "nothing")):
                result = holdfast(tmp_path, place, *command, MLFLOW_TRACKING_URI=address)
                assert "planted" not in said(result)
                assert "Traceback" not in result.stderr
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"planted" not in path.read_bytes(), path
