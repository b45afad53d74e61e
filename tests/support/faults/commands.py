"""How each fault is done to the whole command, with Prefect, MLflow's server and stages from the forkserver."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
from servers import BIN, free_port, wait_for_answer

from faults.bed import SUPPORT, Bed, Running
from faults.draw import STAGES, Fault
from faults.inject import Struck

FETCH = """
import sys, time
from pathlib import Path
from tasks.tracking import Store
store = Store(Path(sys.argv[1]))
while not (running := store.search("attributes.status = 'RUNNING' and tags.`holdfast.kind` = 'train'")):
    time.sleep(0.05)
for _ in range(20):
    store.artifacts.of(running[0])
    time.sleep(0.05)
"""
"""Read, again and again, the artifacts of a training that runs."""
FEWER_TRIES = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3"}
"""MLflow's client gives a server four minutes; so long it need not take to see what then happens."""


class Service:
    """A server at one address, which can be killed and started again."""

    def __init__(self, place: Path, command: list[str], health: str, **settings: str) -> None:
        self.port = free_port()
        self.place, self.health, self.settings = place, health, settings
        self.command = [*command, "--host=127.0.0.1", f"--port={self.port}"]
        place.mkdir(parents=True, exist_ok=True)
        self.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        log = self.place / "server.log"
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                self.command, stdout=file, stderr=file, start_new_session=True, env={**os.environ, **self.settings}
            )
        wait_for_answer(f"{self.address}{self.health}", self.process, log)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def command(bed: Bed, root: Path | None = None, **settings: str) -> Running:
    """`holdfast study` at work."""
    root = root or bed.root
    log = bed.logs / f"{next(bed.numbers)}.log"
    path = os.pathsep.join([str(SUPPORT), str(SUPPORT.parents[1])])
    own = {"PREFECT_HOME": str(bed.place / "prefect"), "COLUMNS": "160", "TMPDIR": str(bed.place / "temporary")}
    (bed.place / "temporary").mkdir(exist_ok=True)
    hidden = ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "PREFECT_LOGGING_LEVEL")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows", "study", "tiny.yaml"],
            cwd=root,
            env={**environment, **own, "PYTHONPATH": path, **settings},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    return Running(process.pid, log, lambda: _code(process.wait()))


def build(bed: Bed) -> None:
    """Let the undisturbed command go on from where the stages of a repository ended, and keep what it came to."""
    bed.restore(STAGES[-1])
    running = command(bed)
    for stage in ("answers influence", "compare"):
        running.until(lambda stage=stage: f"\n{stage}: started" in running.said, 0.02)
        began = time.monotonic()
        running.until(lambda stage=stage: f"\n{stage}: done" in running.said, 0.02)
        bed.seconds[stage] = time.monotonic() - began
    assert running.wait() == "0", running.said
    bed.keep("command")


def strike(bed: Bed, fault: Fault) -> Struck:
    """Bring the repository to where the fault's stage begins, and let it happen to the command."""
    return STRIKES[fault.kind](bed, fault)


def _signal(bed: Bed, fault: Fault) -> Struck:
    name, _, target = fault.way.partition(" to the ")
    bed.restore(bed.before(fault.stage))
    running = command(bed)
    _at_moment(bed, fault, running)
    with suppress(ProcessLookupError):
        if target == "terminal":
            os.killpg(running.pid, signal.Signals[name])
        for pid in _targets(running, target):
            os.kill(pid, signal.Signals[name])
    return Struck(running.wait(), running.said)


def _targets(running: Running, target: str) -> list[int]:
    family = {process: _words(process) for process in running.family()}
    if target == "flow":
        return [running.pid]
    if target == "Prefect server":
        return [process.pid for process, words in family.items() if "flows.commands.server" in words]
    stages = {process: words for process, words in family.items() if "multiprocessing" in words}
    top = [process for process in stages if _parent(process) == running.pid]
    servers = [process.pid for process in top if "forkserver" in stages[process]]
    if target == "forkserver":
        return servers
    return [process.pid for process in stages if _parent(process) in servers] if target == "child" else []


def _mlflow_gone(bed: Bed, fault: Fault) -> Struck:
    bed.restore(bed.before(fault.stage))
    database = f"sqlite:///{bed.root / 'mlruns' / 'mlflow.db'}"
    options = [
        "--workers=1",
        f"--backend-store-uri={database}",
        f"--default-artifact-root={bed.root / 'mlruns' / 'artifacts'}",
    ]
    server = Service(bed.place / "mlflow", [str(BIN / "mlflow"), "server", *options], "/health")
    try:
        tries = FEWER_TRIES if "ended" in fault.way else {}
        return _gone(bed, fault, server, MLFLOW_TRACKING_URI=server.address, **tries)
    finally:
        server.kill()


def _prefect_gone(bed: Bed, fault: Fault) -> Struck:
    bed.restore(bed.before(fault.stage))
    home = bed.place / "served"
    server = Service(home, [str(BIN / "prefect"), "server", "start"], "/api/health", PREFECT_HOME=str(home))
    try:
        return _gone(bed, fault, server, PREFECT_API_URL=f"{server.address}/api")
    finally:
        server.kill()


def _gone(bed: Bed, fault: Fault, server: Service, **settings: str) -> Struck:
    running = command(bed, **settings)
    _at_moment(bed, fault, running)
    server.kill()
    running.ended(1000.0 if "ended" in fault.way else float(fault.way.split()[0]))
    server.start()
    return Struck(running.wait(), running.said)


def _fetched(bed: Bed, fault: Fault) -> Struck:
    """The whole study on a server, whose artifacts another clone reads meanwhile, and then finds."""
    bed.restore("")
    place = bed.place / "remote"
    shutil.rmtree(place, ignore_errors=True)
    options = [
        "--workers=1",
        f"--backend-store-uri=sqlite:///{place}/server.db",
        f"--artifacts-destination={place}/artifacts",
    ]
    server = Service(place, [str(BIN / "mlflow"), "server", *options], "/health")
    clone = bed.place / "clone"
    shutil.rmtree(clone, ignore_errors=True)
    clone.mkdir()
    path = os.pathsep.join([str(SUPPORT), str(SUPPORT.parents[1])])
    settings = {**os.environ, "PYTHONPATH": path, "MLFLOW_TRACKING_URI": server.address}
    reader = subprocess.Popen([sys.executable, "-c", FETCH, str(clone)], env=settings)
    try:
        ended = command(bed, MLFLOW_TRACKING_URI=server.address).wait()
        reader.wait(60)
        shutil.copytree(bed.root, clone, ignore=shutil.ignore_patterns("mlruns"), dirs_exist_ok=True)
        again = command(bed, clone, MLFLOW_TRACKING_URI=server.address)
        code = again.wait()
        assert (ended, code, reader.returncode) == ("0", "0", 0), again.said[-2000:]
        started = [line for line in again.said.splitlines() if line.endswith(": started") and "compare" not in line]
        assert not started, f"the other clone ran again: {started}"
    finally:
        server.kill()
        reader.kill()
        reader.wait()
    bed.restore("command")
    return Struck("0")


STRIKES: dict[str, Callable[[Bed, Fault], Struck]] = {
    "signal": _signal,
    "MLflow server gone": _mlflow_gone,
    "Prefect server gone": _prefect_gone,
    "remote artifact fetched while its run still runs": _fetched,
}


def _at_moment(bed: Bed, fault: Fault, running: Running) -> None:
    running.until(lambda: f"\n{fault.stage}: started" in running.said, 0.02)
    running.ended(fault.moment * bed.seconds[fault.stage])


def _words(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def _parent(process: psutil.Process) -> int:
    with suppress(psutil.Error):
        return process.ppid()
    return 0


def _code(code: int) -> str:
    return "killed" if code == -signal.SIGKILL else str(code)
