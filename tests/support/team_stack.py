"""What a team's servers are asked from outside, whether they run in containers or as plain processes."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests

BIN = Path(sys.executable).parent
STUDY = "smoke"


class Stack(NamedTuple):
    """Addresses as this machine reaches them, and the secrets of stack.env."""

    prefect: str
    """Ends in /api."""
    mlflow: str
    s3: str
    secrets: dict[str, str]

    @property
    def client(self) -> dict[str, str]:
        """Environment of a program that uses the servers."""
        names = ("PREFECT_API_AUTH_STRING", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
        keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        return {
            **{name: self.secrets[name] for name in (*names, *keys)},
            "PREFECT_API_URL": self.prefect,
            "MLFLOW_TRACKING_URI": self.mlflow,
            "AWS_ENDPOINT_URL_S3": self.s3,
            "AWS_REGION": "us-east-1",
            "PREFECT_LOGGING_LEVEL": "INFO",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        }

    def run(self, command: list[Any], cwd: Path | None = None) -> str:
        """A command's output; fails with what it said."""
        done = subprocess.run(
            command, env={**os.environ, **self.client}, cwd=cwd, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def prefect_answer(self, path: str, question: dict[str, Any] | None = None) -> Any:
        """What Prefect's API says; posts where there is a question."""
        user, _, password = self.secrets["PREFECT_API_AUTH_STRING"].partition(":")
        method = "GET" if question is None else "POST"
        answer = requests.request(method, f"{self.prefect}/{path}", json=question, auth=(user, password), timeout=30)
        answer.raise_for_status()
        return answer.json()

    def mlflow_answer(self, path: str, question: dict[str, Any]) -> Any:
        """What MLflow's API says to a question that is posted."""
        login = (self.secrets["MLFLOW_TRACKING_USERNAME"], self.secrets["MLFLOW_TRACKING_PASSWORD"])
        answer = requests.post(f"{self.mlflow}/api/2.0/mlflow/{path}", json=question, auth=login, timeout=30)
        answer.raise_for_status()
        return answer.json()

    def runs(self) -> list[dict[str, Any]]:
        """The study's runs in MLflow: info, and tags as a dictionary; latest first."""
        experiments = self.mlflow_answer("experiments/search", {"max_results": 100}).get("experiments", [])
        ids = [one["experiment_id"] for one in experiments if one["name"] == STUDY]
        found = self.mlflow_answer("runs/search", {"experiment_ids": ids, "max_results": 1000}) if ids else {}
        return [
            {**run["info"], "tags": {tag["key"]: tag["value"] for tag in run["data"]["tags"]}}
            for run in found.get("runs", [])
        ]

    def trainings(self) -> list[dict[str, Any]]:
        """Those of the runs that train."""
        return [run for run in self.runs() if run["tags"].get("holdfast.kind") == "train"]

    def submit(self) -> str:
        """Id of a new run of the study's deployment."""
        known = {run["id"] for run in self._flow_runs()}
        self.run([BIN / "prefect", "deployment", "run", f"study/{STUDY}"])
        return next(run["id"] for run in self._flow_runs() if run["id"] not in known)

    def flow_run(self, flow_run_id: str) -> dict[str, Any]:
        return self.prefect_answer(f"flow_runs/{flow_run_id}")

    def await_end(self, flow_run_id: str, limit: float) -> dict[str, Any]:
        """The flow run, once it ended well."""

        def ended() -> dict[str, Any] | None:
            run = self.flow_run(flow_run_id)
            assert run["state_type"] not in ("FAILED", "CANCELLED"), run["state"]
            return run if run["state_type"] == "COMPLETED" else None

        return await_that(ended, limit)

    def await_training(self, limit: float) -> None:
        """Until a training of the study has begun and has not ended."""
        await_that(lambda: any(run["status"] == "RUNNING" for run in self.trainings()), limit)

    def _flow_runs(self) -> list[dict[str, Any]]:
        return self.prefect_answer("flow_runs/filter", {"flows": {"name": {"any_": ["study"]}}})


def await_that(found: Callable[[], Any], limit: float) -> Any:
    """What the question answers, as soon as that is something."""
    deadline = time.monotonic() + limit
    while not (answer := found()):
        assert time.monotonic() < deadline, f"not within {limit:.0f} s"
        time.sleep(1)
    return answer


def check_results(stack: Stack, flow_run_id: str, digests: dict[str, str]) -> None:
    """Runs in MLflow, its artifacts in S3, links on Prefect's page, and data, as `digests` has it, in DVC's remote."""
    assert requests.post(f"{stack.mlflow}/api/2.0/mlflow/experiments/search", json={}, timeout=30).status_code == 401
    assert requests.post(f"{stack.prefect}/flow_runs/filter", json={}, timeout=30).status_code == 401
    runs = stack.runs()
    assert not [run for run in runs if run["status"] == "RUNNING"]
    parents = [
        run
        for run in runs
        if run["tags"].get("holdfast.kind") == "study"
        and run["tags"]["prefect.flow_run_id"] == flow_run_id
        and run["status"] == "FINISHED"
    ]
    assert len(parents) == 1
    parent = parents[0]
    trained = sorted(run["tags"]["holdfast.arm"] for run in stack.trainings() if run["status"] == "FINISHED")
    assert trained == ["aligned", "answers", "rft", "rollouts", "self", "teacher"], "each once"
    stored = _stored(stack)
    assert f"mlflow/{parent['experiment_id']}/{parent['run_id']}/artifacts/report.html" in stored
    assert any(name.endswith(".safetensors") for name in stored if name.startswith("mlflow/"))
    assert digests
    missing = {name for name, md5 in digests.items() if f"dvc/files/md5/{md5[:2]}/{md5[2:]}" not in stored}
    assert not missing
    artifacts = stack.prefect_answer("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [flow_run_id]}}})
    # The worker that was killed has left a link, too: to its own run.
    shown = [(one["key"], json.dumps(one["data"])) for one in artifacts]
    assert any(key == f"mlflow-{STUDY}" and parent["run_id"] in text for key, text in shown)
    assert any(key == f"report-{STUDY}" and "report.html" in text for key, text in shown)


def _stored(stack: Stack) -> set[str]:
    """The names of all objects in the bucket."""
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=stack.s3,
        aws_access_key_id=stack.secrets["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=stack.secrets["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
    )
    pages = client.get_paginator("list_objects_v2").paginate(Bucket="holdfast")
    return {one["Key"] for page in pages for one in page.get("Contents", [])}


def read_secrets(file: Path) -> dict[str, str]:
    """NAME=VALUE lines of an environment file."""
    lines = (line.partition("=") for line in file.read_text().splitlines() if line and not line.startswith("#"))
    return {name: value for name, _, value in lines}


def stack_environment(patch: pytest.MonkeyPatch, file: Path) -> None:
    """Set what docs/team.md has everybody source: a new stack.env."""
    subprocess.run([Path(__file__).parents[2] / "stack" / "secrets.sh", file], check=True, capture_output=True)
    for name, value in read_secrets(file).items():
        patch.setenv(name, value)
    file.unlink()
