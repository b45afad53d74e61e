"""A flow run is marked only when the process behind it is gone; on a real Prefect server with a password."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from uuid import UUID

import psutil
import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, get_current_settings, temporary_settings
from prefect.states import Pending, Running
from repositories import holdfast
from servers import free_port, prefect_server
from team_stack import await_that

from flows.automations import automations, set_automations
from flows.commands.serve import watch_name
from flows.deployments import Experiment, deployments, watch_deployment
from flows.watch import watch
from holdfast.config.methods import SFT, Answers
from holdfast.config.study import Study
from tasks.run_owner import _started
from tasks.tracking import Store, open_store

REPOSITORY = Path(__file__).parents[2]
PASSWORD = "team:correct-horse"
STUDY = Study(name="x", arms={"a": (SFT(method="sft", source=Answers()),)})

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    # Prefect's own 15 s before a run is late, in one.
    settings = {"PREFECT_SERVER_API_AUTH_STRING": PASSWORD, "PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS": "1"}
    with prefect_server(tmp_path_factory.mktemp("prefect"), **settings) as api:
        yield api


@pytest.fixture
def root(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    open_store.cache_clear()
    with temporary_settings({PREFECT_API_URL: server, PREFECT_API_AUTH_STRING: PASSWORD}):
        yield tmp_path
    open_store.cache_clear()


@pytest.fixture
def begun(root: Path) -> UUID:
    """A flow run of a deployment that Prefect thinks is running."""
    deployment_id = deployments([Experiment(STUDY)])[0].apply()
    with get_client(sync_client=True) as client:
        run = client.create_flow_run_from_deployment(deployment_id)
        client.set_flow_run_state(run.id, Pending())
        client.set_flow_run_state(run.id, Running())
    return run.id


def state_of(run: UUID) -> str:
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(run).state
    assert state is not None
    return state.name


def owned_by(pid: int, started: str, run: UUID, store: Store) -> str:
    tags = {"holdfast.kind": "study", "prefect.flow_run_id": str(run)}
    return store.begin("x", "x", {**tags, "holdfast.pid": str(pid), "holdfast.started": started})


def test_a_run_whose_process_lives_is_left_alone(root: Path, begun: UUID):
    me = psutil.Process()
    owned_by(me.pid, _started(me), begun, open_store(root))
    assert "its process lives" in watch(f"prefect.flow-run.{begun}", root=root)
    assert state_of(begun) == "Running"


def test_a_run_of_which_nothing_is_known_is_left_alone(root: Path, begun: UUID):
    assert "cancel it if it is dead" in watch(str(begun), root=root)
    assert state_of(begun) == "Running"


def test_a_run_whose_process_is_gone_waits_for_the_next_worker(root: Path, begun: UUID):
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = _started(psutil.Process(process.pid))
    store = open_store(root)
    mine = owned_by(process.pid, started, begun, store)
    process.kill()
    process.wait()
    assert "the next worker continues it" in watch(f"prefect.flow-run.{begun}", root=root)
    assert state_of(begun) == "AwaitingRetry"
    assert store.client.get_run(mine).info.status == "KILLED"
    assert "waits to begin, AwaitingRetry since" in watch(str(begun), root=root)
    assert state_of(begun) == "AwaitingRetry"


def test_automations_are_made_once_and_call_the_watch(root: Path):
    watching = watch_deployment("runs", 300.0).apply()
    names = [f"holdfast: {kind} runs" for kind in ("failed", "zombie", "stalled")]

    def made(silence: float) -> list[UUID]:
        set_automations(automations(watching, timedelta(seconds=silence), timedelta(seconds=300)))
        with get_client(sync_client=True) as client:
            found = [one for name in names for one in client.read_automations_by_name(name)]
        assert {action.deployment_id for one in found for action in one.actions} == {watching}
        return [one.id for one in found]

    first = made(300)
    assert len(first) == 3
    # A new one would have forgotten which runs it waits for.
    assert made(300) == first
    other = made(90)
    assert [one == two for one, two in zip(other, first, strict=True)] == [True, False, True]


def test_the_watch_is_called_for_a_run_that_nobody_takes(root: Path):
    watching = watch_deployment("of late runs", 300.0).apply()
    set_automations(automations(watching, timedelta(seconds=300), timedelta(seconds=10), " that are late"))
    with get_client(sync_client=True) as client:
        waiting = client.create_flow_run_from_deployment(deployments([Experiment(STUDY)])[0].apply()).id
        only = DeploymentFilter(id=DeploymentFilterId(any_=[watching]))
        called = await_that(lambda: client.read_flow_runs(deployment_filter=only), 90)
    assert [run.parameters["flow_run"] for run in called] == [f"prefect.flow-run.{waiting}"]
    assert "waits to begin, Late since" in watch(str(waiting), root=root)


@contextmanager
def serving(root: Path, *arguments: str, **settings: str) -> Iterator[Path]:
    """A `holdfast serve` or `watch` in a directory until the block ends, as Ctrl-C ends it; gives what it says."""
    said, prefect = root / "said.txt", get_current_settings().api
    key = {"PREFECT_API_URL": prefect.url or "", "PREFECT_API_AUTH_STRING": PASSWORD}
    home = {"PREFECT_HOME": str(root / ".prefect"), "TMPDIR": str(root)}
    with said.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows", *arguments],
            cwd=root,
            env={**os.environ, **key, **home, **settings},
            stdout=file,
            stderr=file,
            # A shell's background jobs ignore it.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )
    try:
        yield said
    finally:
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(60) == 0, said.read_text()
        finally:
            process.kill()


def find(name: str) -> DeploymentResponse | None:
    with get_client(sync_client=True) as client, suppress(ObjectNotFound):
        return client.read_deployment_by_name(name)
    return None


def paused(name: str) -> bool:
    known = find(name)
    assert known is not None, name
    return known.paused


def test_who_serves_beside_others_works_in_its_own_directory_and_stops_its_own_schedules_only(root: Path, begun: UUID):
    (root / "nightly.yaml").write_text(
        "name: nightly\narms: {a: [{method: sft, source: answers}]}\nschedule: {interval: 1d}\n"
    )
    store = open_store(root)
    watch_deployment("runs", 300.0).apply()
    mine = watch_deployment(watch_name(store), 90.0).apply()
    owned_by(2**22 + 1, "0", begun, store)
    with get_client(sync_client=True) as client:
        client.create_flow_run_from_deployment(mine, parameters={"flow_run": str(begun)})
        with serving(root, "serve", "nightly.yaml"):
            await_that(lambda: state_of(begun) == "AwaitingRetry", 90)
            assert not paused("study/nightly")
        assert client.read_deployment(mine).parameters == {"silence": 90.0}, "as somebody's `holdfast watch` set it"
    assert [paused(name) for name in ("study/nightly", "study/any", "watch/runs")] == [True, False, False]


def test_the_compose_file_sees_that_a_watch_asks_the_server(root: Path):
    service = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]["watch"]
    name, port = "PREFECT_RUNNER_SERVER_ENABLE", str(free_port())
    health = [sys.executable, *(part.replace(":8080/", f":{port}/") for part in service["healthcheck"]["test"][2:])]

    def well() -> bool:
        return subprocess.run(health, capture_output=True, check=False).returncode == 0

    with serving(root, "watch", **{name: service["environment"][name], "PREFECT_RUNNER_SERVER_PORT": port}):
        await_that(well, 90)
    assert not well()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "has no such work pool (it has none); create it with `prefect work-pool create gpu --type process`"),
        ({"PREFECT_API_AUTH_STRING": "team:wrong"}, "refuses the user or the key (401); set PREFECT_API_AUTH_STRING="),
        ({"PREFECT_API_URL": "http://127.0.0.1:9/api"}, "no Prefect server answers there"),
        ({"PREFECT_API_URL": ""}, "PREFECT_API_URL: is not set; start a server"),
    ],
)
def test_what_keeps_a_deployment_from_its_pool_is_told_in_one_sentence(
    server: str, tmp_path: Path, settings: dict[str, str], told: str
):
    (tmp_path / "x.yaml").write_text("name: x\narms: {a: [{method: sft, source: answers}]}\n")
    given = {"PREFECT_API_URL": server, "PREFECT_API_AUTH_STRING": PASSWORD, **settings}
    done = holdfast(tmp_path, str(tmp_path), "deploy", "x.yaml", "--pool", "gpu", **given)
    assert done.code == 2, done.stderr
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
