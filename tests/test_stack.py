"""The team stack of docker-compose.yml in Docker, on ports of its own: `make stack-test`."""

import os
import shlex
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from servers import free_port
from team_stack import STUDY, Stack, check_results, read_secrets

REPOSITORY = Path(__file__).parents[1]
SILENCE = 90
"""Seconds without a sign of life after which the watch looks at a run: three heartbeats."""

pytestmark = [
    pytest.mark.stack,
    pytest.mark.skipif(shutil.which("docker") is None, reason="Docker is not installed"),
]


class Compose:
    """The real file, as a project of its own."""

    def __init__(self, place: Path) -> None:
        self.file = place / "stack.env"
        subprocess.run([REPOSITORY / "stack" / "secrets.sh", self.file], check=True)
        self.project = f"holdfast-test-{uuid.uuid4().hex[:8]}"
        self.ports = {name: str(free_port()) for name in ("PREFECT_PORT", "MLFLOW_PORT", "S3_PORT")}

    def __call__(self, *arguments: str) -> str:
        command = shlex.split(os.environ.get("COMPOSE", "docker-compose -f docker-compose.yml"))
        command += ["-p", self.project, "--env-file", str(self.file), *arguments]
        settings = {**os.environ, **self.ports, "WATCH_SILENCE": str(SILENCE)}
        done = subprocess.run(command, cwd=REPOSITORY, env=settings, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def container(self, service: str) -> str:
        return self("ps", "-q", service).strip()


@pytest.fixture(scope="module")
def compose(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    compose = Compose(tmp_path_factory.mktemp("compose"))
    try:
        compose("up", "-d")
        yield compose
    finally:
        print(compose("logs", "--no-color", "--tail=200"))
        compose("down", "--volumes", "--timeout=10")


@pytest.fixture(scope="module")
def stack(compose: Compose) -> Stack:
    prefect, mlflow, s3 = (f"http://127.0.0.1:{port}" for port in compose.ports.values())
    return Stack(f"{prefect}/api", mlflow, s3, read_secrets(compose.file))


def test_the_image_begins_a_run_with_prefects_command() -> None:
    image = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]["worker"]["image"]
    # What workers of Docker and Kubernetes give, as far as it needs no flow run.
    for command in (["prefect", "version"], ["prefect", "flow-run", "execute", "--help"], ["holdfast", "--help"]):
        subprocess.run(["docker", "run", "--rm", image, *command], check=True, capture_output=True)


def test_a_study_whose_worker_is_killed_is_finished_by_another_one(compose: Compose, stack: Stack) -> None:
    flow_run = stack.submit()
    stack.await_training(1200)
    killed = compose.container("worker")
    subprocess.run(["docker", "kill", killed], check=True, capture_output=True)
    subprocess.run(["docker", "rm", "-f", killed], check=True, capture_output=True)
    assert stack.flow_run(flow_run)["state_type"] == "RUNNING", "nobody knows yet"
    compose("up", "-d", "worker")
    ended = stack.await_end(flow_run, 3600)
    assert ended["run_count"] == 2
    # What DVC pinned, as the workers have it.
    pinned = subprocess.run(
        ["docker", "exec", compose.container("worker"), "cat", "/workspace/data.dvc"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    document = yaml.safe_load(pinned)
    check_results(stack, flow_run, {**document["meta"]["files"], "data": document["outs"][0]["md5"]})


def test_the_same_study_again_finds_everything(stack: Stack) -> None:
    before = len(stack.trainings())
    began = time.monotonic()
    stack.await_end(stack.submit(), 1200)
    print(f"{STUDY} again: {time.monotonic() - began:.0f} s")
    assert len(stack.trainings()) == before


def test_only_this_machine_reaches_the_stack(compose: Compose) -> None:
    for service in ("prefect", "mlflow", "s3", "postgres", "worker"):
        ports = subprocess.run(
            ["docker", "port", compose.container(service)], check=True, capture_output=True, text=True
        ).stdout
        assert all("-> 127.0.0.1:" in line for line in ports.splitlines()), ports
