"""The store on real servers: MLflow in a process of its own, with artifacts that go through it."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import mlflow
import pytest
from faults.damage import hot_journal
from servers import POSTGRES, mlflow_server, postgres

from holdfast.config.results import Checkpoint
from holdfast.errors import UserError
from tasks import server_probe
from tasks.tracking import Point, RegistryFailed, Store


@pytest.fixture(scope="module")
def address(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    place = tmp_path_factory.mktemp("server")
    shutil.copy(empty_store, place / "server.db")
    with mlflow_server(place) as address:
        yield address


@pytest.fixture
def store(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    return Store(tmp_path / "here")


def test_a_database_whose_journal_was_damaged_with_it_is_refused(tmp_path: Path, empty_store: Path):
    database = tmp_path / "mlflow.db"
    shutil.copy(empty_store, database)
    hot_journal(database)
    server_probe.probe(f"sqlite:///{database}", lambda: None)
    assert not database.with_name("mlflow.db-journal").exists(), "SQLite takes back what was begun"
    # A journal that SQLite does not take for its own, beside half of what was begun.
    hot_journal(database).write_bytes(b"lost")
    content = bytearray(database.read_bytes())
    content[8192:12288] = bytes(4096)
    database.write_bytes(content)
    with pytest.raises(UserError, match=r"mlflow\.db: is damaged \(.*move it away"):
        server_probe.probe(f"sqlite:///{database}", lambda: None)


def checkpoint(directory: Path, step: int) -> Checkpoint:
    kept = Checkpoint(step=step, path=f"checkpoints/step-{step:06d}", digest=f"digest-{step}")
    (directory / kept.path).mkdir(parents=True)
    (directory / kept.path / "model.safetensors").write_bytes(bytes([step]) * 100)
    return kept


def test_a_run_on_a_server_is_recorded_registered_and_read_elsewhere(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run_id = store.begin("on-a-server", "answers", {"holdfast.stage_key": "k", "holdfast.arm": "answers"})
    store.params(run_id, {f"p{n}": "1" for n in range(150)})
    kept = checkpoint(tmp_path / "work", 3)
    model = store.models.keep(run_id, kept)
    store.log(run_id, [Point("target/jigsaw/score", 0.5, 3, time.time(), model)], ("data", "d"))
    store.artifacts.text(run_id, "{}", "config.json")
    path = store.artifacts.upload_last(run_id, tmp_path / "work", [f"{kept.path}/model.safetensors"])
    store.models.register("answers", "best-skill", run_id, 3)
    store.models.register("answers", "best-skill", run_id, 3)
    store.end(run_id, "FINISHED")

    # What was uploaded is read from here; what else the run has is fetched for whoever needs all of it.
    recorded = store.run(run_id)
    for place in (path, store.artifacts.of(recorded), store.artifacts.whole(recorded)):
        assert place == path
        assert (place / kept.path / "model.safetensors").read_bytes() == b"\x03" * 100
        incomplete = place.with_name(f"{run_id}.incomplete").exists()
        assert (place / "config.json").exists() != incomplete
    assert (path / "config.json").read_text() == "{}"
    elsewhere = Store(tmp_path / "there")
    [found] = elsewhere.with_key("k")
    copied = elsewhere.artifacts.of(found)
    assert copied != path
    assert (copied / kept.path / "model.safetensors").read_bytes() == b"\x03" * 100
    version = elsewhere.client.get_model_version_by_alias("answers", "best-skill")
    assert (str(version.version), version.run_id) == ("1", run_id)
    fetched = mlflow.artifacts.download_artifacts("models:/answers@best-skill", dst_path=str(tmp_path / "fetched"))
    assert (Path(fetched) / "model.safetensors").read_bytes() == b"\x03" * 100
    assert elsewhere.link(run_id).startswith(f"{store.uri}/#/experiments/")


def test_a_copy_of_a_running_run_is_not_taken_for_the_finished_one(store: Store, tmp_path: Path):
    run_id = store.begin("on-a-server", "shown", {})
    store.artifacts.text(run_id, "first", "log.txt")
    assert (store.artifacts.of(store.run(run_id)) / "log.txt").read_text() == "first"
    store.artifacts.text(run_id, "again", "log.txt")
    store.artifacts.text(run_id, "{}", "result.json")
    assert (store.artifacts.of(store.run(run_id)) / "log.txt").read_text() == "again"
    store.end(run_id, "FINISHED")
    assert (store.artifacts.of(store.run(run_id)) / "result.json").read_text() == "{}"


def test_a_finished_run_is_copied_once_and_a_broken_copy_again(store: Store):
    run_id = store.begin("on-a-server", "copied", {})
    store.artifacts.text(run_id, "whole", "weights.bin")
    store.end(run_id, "FINISHED")
    run = store.run(run_id)
    # A download that was killed.
    (store.directory / "cache" / f"{run_id}.partial").mkdir(parents=True)
    (store.directory / "cache" / f"{run_id}.partial" / "weights.bin").write_text("wh")
    copy = store.artifacts.of(run) / "weights.bin"
    assert copy.read_text() == "whole"
    copy.write_text("brok")
    assert (store.artifacts.of(run) / "weights.bin").read_text() == "brok"
    assert (store.artifacts.of(run, again=True) / "weights.bin").read_text() == "whole"


def test_a_registry_that_fails_says_so_and_nothing_else_is_lost(address: str, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    store = Store(tmp_path / "here")
    run_id = store.begin("on-a-server", "unregistered", {})
    store.models.keep(run_id, checkpoint(tmp_path / "work", 3))
    with pytest.raises(RegistryFailed, match="refused"):
        store.models.register("answers", "best-skill", run_id, 3)
    store.end(run_id, "FINISHED")
    assert store.run(run_id).info.status == "FINISHED"


def test_the_link_to_a_run_is_for_a_persons_browser(store: Store, monkeypatch):
    run_id = store.begin("on-a-server", "linked", {})
    monkeypatch.setenv("HOLDFAST_MLFLOW_PAGE", "http://me:secret@example.org:5000/")
    start, _, rest = store.link(run_id).partition("/#/")
    store.end(run_id, "FINISHED")
    assert start == "http://me:***@example.org:5000"
    assert rest.endswith(f"/runs/{run_id}?workflowType=machine_learning")


def refusal(uri: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    began = time.monotonic()
    with pytest.raises(UserError) as error:
        Store(root)
    assert time.monotonic() - began < 10
    assert len(str(error.value)) < 300
    assert "secret" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("http://127.0.0.1:9", "connection refused); start it (`make ui`)"),
        ("http://no-such-host.invalid:5000", "its host has no address"),
        ("127.0.0.1:5000", "write http://127.0.0.1:5000"),
        ("htp://127.0.0.1:5000", "MLflow knows no htp://"),
        ("./mlruns", "set MLFLOW_TRACKING_URI=sqlite:///mlruns/mlflow.db"),
        ("file:///tmp/mlruns", "mlflow migrate-filestore"),
        ("postgresql://me:secret@127.0.0.1:9/x", "Connection refused); start it"),
        ("nodriver+x://127.0.0.1/x", "MLflow knows no nodriver+x://"),
        ("sqlite:mlruns/mlflow.db", "cannot be opened"),
    ],
)
def test_a_store_that_is_not_there_is_told_with_its_remedy(uri: str, told: str, tmp_path: Path, monkeypatch):
    assert told in refusal(uri, tmp_path, monkeypatch)


@pytest.mark.skipif(not POSTGRES, reason="PostgreSQL is not installed below /usr/lib/postgresql")
def test_a_database_that_refuses_the_password_is_told(tmp_path: Path, monkeypatch):
    with tempfile.TemporaryDirectory(prefix="hf") as place, postgres(Path(place), "right") as uri:
        told = refusal(uri.replace("right", "secret"), tmp_path, monkeypatch)
    assert "the database refuses the user or the password" in told


@pytest.mark.parametrize("path", ["/api", "/mlflow", "/#/experiments/1"])
def test_a_path_behind_the_address_is_told(address: str, path: str, tmp_path: Path, monkeypatch):
    if "#" in path:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address + path)
    assert "without a further path" in refusal(address + path, tmp_path, monkeypatch)


def test_a_slash_behind_the_address_does_no_harm(address: str, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{address}/")
    assert Store(tmp_path).search("attributes.run_name = 'nothing'") == []


def test_a_file_that_is_no_database_is_told(tmp_path: Path, monkeypatch):
    (tmp_path / "notes.db").write_text("not a database, " * 100)
    assert "file is not a database" in refusal(f"sqlite:///{tmp_path}/notes.db", tmp_path, monkeypatch)


def test_a_server_that_never_answers_is_told_within_ten_seconds(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(server_probe, "ANSWER_LIMIT", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        told = refusal(f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path, monkeypatch)
    assert "no MLflow server answers there within" in told


@pytest.mark.parametrize(
    ("code", "body", "told"),
    [
        (200, "<html>a page</html>", "there is no MLflow API at this address"),
        (200, '{"users": []}', "there is no MLflow API at this address"),
        (401, "no", "refuses the user or the password (401); set MLFLOW_TRACKING_USERNAME"),
        (403, "Permission denied", "lets this user read no experiments (403)"),
        (403, "Invalid Host header - possible DNS rebinding attack detected", "--allowed-hosts=127.0.0.1:"),
        (404, "<html>not found</html>", "without a further path"),
        (503, "busy", "answers with error 503"),
    ],
)
def test_an_answer_that_is_not_mlflows_is_told(code: int, body: str, told: str, tmp_path: Path, monkeypatch):
    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(code)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        said = refusal(f"http://127.0.0.1:{server.server_port}", tmp_path, monkeypatch)
        server.shutdown()
    assert told in said


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_processes_that_open_a_new_database_at_once_all_find_its_tables(tmp_path: Path, kind: str):
    """MLflow's own making of tables fails in all but one of them."""
    if kind == "postgresql" and not POSTGRES:
        pytest.skip("PostgreSQL is not installed below /usr/lib/postgresql")
    with ExitStack() as stack:
        uri = f"sqlite:///{tmp_path}/new.db"
        if kind == "postgresql":
            uri = stack.enter_context(
                postgres(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hf"))), "secret")
            )
        code = "from pathlib import Path; from tasks.tracking import Store; Store(Path('.')).experiment('one')"
        settings = {**os.environ, "MLFLOW_TRACKING_URI": uri, "PYTHONPATH": os.pathsep.join(sys.path)}
        started = [
            subprocess.Popen(
                [sys.executable, "-c", code], cwd=tmp_path, env=settings, stderr=subprocess.PIPE, text=True
            )
            for _ in range(3)
        ]
        said = [process.communicate()[1] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], said
