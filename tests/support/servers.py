"""Real servers in processes of their own, on ports of this machine."""

import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

BIN = Path(sys.executable).parent
POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


@contextmanager
def mlflow_server(place: Path, database: str = "", options: Sequence[str] = ()) -> Iterator[str]:
    """The address of an MLflow server that hands out artifacts; runs in `database`, by default SQLite below `place`."""
    port = free_port()
    command = [BIN / "mlflow", "server", "--host=127.0.0.1", f"--port={port}", "--workers=1"]
    command += [f"--backend-store-uri={database or f'sqlite:///{place}/server.db'}", *options]
    command += [f"--artifacts-destination={place}/artifacts"]
    # As the compose file has it.
    settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with server_process(command, place, f"http://127.0.0.1:{port}", "/health", **settings):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def prefect_server(place: Path, **settings: str) -> Iterator[str]:
    """The address of a Prefect server's API."""
    port = free_port()
    command = [BIN / "prefect", "server", "start", "--host=127.0.0.1", f"--port={port}"]
    place.mkdir(exist_ok=True)
    with server_process(command, place, f"http://127.0.0.1:{port}", "/api/health", PREFECT_HOME=str(place), **settings):
        yield f"http://127.0.0.1:{port}/api"


@contextmanager
def postgres(place: Path, password: str) -> Iterator[str]:
    """The address of a new PostgreSQL database, which asks for a password."""
    binaries, port = POSTGRES[-1].parent, free_port()
    # It refuses to run as root.
    user = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
    become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if os.getuid() == 0 else []
    secret = place / "password"
    secret.write_text(password)
    if become:
        shutil.chown(place, user, user)
        shutil.chown(secret, user, user)
    cluster = place / "cluster"
    made = [*become, binaries / "initdb", "-D", cluster, "-U", "holdfast", "-A", "scram-sha-256", f"--pwfile={secret}"]
    subprocess.run(made, check=True, capture_output=True, cwd=place)
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
    control = [*become, binaries / "pg_ctl", "-D", cluster, "-w", "-o", options, "-l", cluster / "log"]
    subprocess.run([*control, "start"], check=True, capture_output=True, cwd=place)
    try:
        yield f"postgresql://holdfast:{password}@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=True, capture_output=True, cwd=place)


@contextmanager
def server_process(
    command: list, place: Path, address: str, health: str, within: float = 120, **settings: str
) -> Iterator[None]:
    """A server's process, from when it answers."""
    log = place / "server.log"
    with log.open("ab") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, **settings}, cwd=place)
    try:
        wait_for_answer(f"{address}{health}", process, log, within)
        yield
    finally:
        process.terminate()
        process.wait()


def wait_for_answer(url: str, process: subprocess.Popen, log: Path, within: float = 120) -> None:
    """Wait until a server that was just started answers."""
    deadline = time.monotonic() + within
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
