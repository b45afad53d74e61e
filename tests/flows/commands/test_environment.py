"""What a command makes of the environment that it is started in, in processes of its own."""

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
from repositories import holdfast, new_repository

from holdfast.config.refs import ModelRef
from tasks.tracking import Store

PREPARED = """
import json, os, sys
from pathlib import Path
from flows.commands.environment import prepare_process
prepare_process(Path.cwd())
print(json.dumps({**os.environ, "heavy": [name for name in ("prefect", "mlflow") if name in sys.modules]}))
"""
TINY = {
    "name": "tiny",
    "images": {"source": "world", "size": 64},
    "target": {"train": 8, "validation": 2, "test": 4},
    "prior": [{"benchmark": "color", "questions": 4}],
    "arms": {"a": [{"method": "sft", "source": "answers"}]},
}
DEAD = "http://127.0.0.1:9"


def prepared(root: Path, **environment: str) -> dict[str, str]:
    """The environment that libraries see; `environment` is all that the command has besides the search path."""
    path = {"PYTHONPATH": os.pathsep.join(sys.path), "PATH": os.environ["PATH"]}
    done = subprocess.run([sys.executable, "-c", PREPARED], env={**path, **environment}, cwd=root, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


COMPLAINT = """
import logging
from pathlib import Path
from flows.commands.environment import prepare_process
prepare_process(Path.cwd())
from prefect.logging.configuration import setup_logging
setup_logging()
logging.getLogger("prefect._internal.concurrency").error("Service 'EventsWorker' failed to process item")
"""


def test_prefect_prints_no_event_that_a_server_which_is_away_did_not_take(tmp_path: Path):
    path = {"PYTHONPATH": os.pathsep.join(sys.path), "PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", COMPLAINT], env=path, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "EventsWorker" not in done.stdout + done.stderr


def test_no_proxy_stands_before_this_machine(tmp_path: Path):
    seen = prepared(tmp_path, HOME=str(tmp_path), http_proxy=DEAD, no_proxy="intranet,localhost")
    assert seen["no_proxy"] == seen["NO_PROXY"] == "intranet,localhost,127.0.0.1,::1"
    assert seen["http_proxy"] == DEAD
    assert seen["heavy"] == []


def test_whoever_uses_no_proxy_at_all_is_left_alone(tmp_path: Path):
    assert prepared(tmp_path, HOME=str(tmp_path), NO_PROXY="*")["NO_PROXY"] == "*"


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("no_proxy", "[::1], fe80::/10,10.0.0.0/8 ,.corp,*.x,h:80,fd00::2,", "::1,10.0.0.0/8,.corp,*.x,h:80,fd00::2"),
        ("all_proxy", "socks://127.0.0.1:9", "socks5://127.0.0.1:9"),
        ("https_proxy", "proxy:3128", "proxy:3128"),
    ],
)
def test_what_people_write_is_read_by_every_client(tmp_path: Path, name: str, value: str, read: str):
    seen = prepared(tmp_path, HOME=str(tmp_path), **{name: value})[name]
    assert seen == (f"{read},127.0.0.1,localhost" if name == "no_proxy" else read)
    client = "import httpx; httpx.Client().close()"
    subprocess.run([sys.executable, "-c", client], env={**os.environ, name: seen}, check=True)


@pytest.mark.parametrize("value", ["htp://proxy", "socks4://proxy:1080", "http://proxy:port", "http://", "http://[::1"])
def test_a_proxy_that_no_client_can_read_is_refused(tmp_path: Path, value: str):
    done = holdfast(tmp_path, str(tmp_path), "doctor", http_proxy=value)
    assert (done.code, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("holdfast: http_proxy: is no proxy that can be used; write http://HOST:PORT")


def test_a_home_that_cannot_be_used_is_replaced(tmp_path: Path):
    home = str(tmp_path / "mlruns" / "home")
    assert prepared(tmp_path)["HOME"] == home
    assert prepared(tmp_path, HOME="/nonexistent")["HOME"] == home
    # Readable, not writable: what it holds is used, new things go elsewhere.
    seen = prepared(tmp_path, HOME="/proc")
    assert (seen["HOME"], seen["PREFECT_HOME"]) == ("/proc", f"{home}/.prefect")
    assert Path(home).is_dir()


@pytest.mark.slow
def test_data_is_made_behind_dead_proxies(tmp_path: Path, tiny_model: ModelRef):
    new_repository(tmp_path, {**TINY, "model": {"path": tiny_model.path}})
    names = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
    proxies = dict.fromkeys(names, DEAD) | {"all_proxy": "socks5://127.0.0.1:9", "no_proxy": "", "NO_PROXY": ""}
    for command in ("data", "tiny.yaml"), ("doctor",):
        done = holdfast(tmp_path, str(tmp_path), *command, **proxies)
        assert done.code == 0, done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_terminal_that_closes_ends_a_study_which_the_same_command_continues(
    tmp_path: Path, tiny_model: ModelRef, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    trainer = {"max_steps": 800, "per_device_train_batch_size": 4}
    arms = {"a": [{"method": "sft", "source": "answers", "trainer": trainer}]}
    new_repository(tmp_path, {**TINY, "arms": arms, "model": {"path": tiny_model.path}})
    store = Store(tmp_path)
    process, terminal = pty.fork()
    if process == 0:
        os.environ |= {"PREFECT_HOME": str(tmp_path / ".prefect"), "TMPDIR": str(tmp_path)}
        os.environ.pop("PREFECT_API_URL", None)
        os.chdir(tmp_path)
        os.execl(sys.executable, sys.executable, "-m", "flows", "study", "tiny.yaml")
    deadline = time.monotonic() + 120
    while not store.search("attributes.run_name = 'a' and attributes.status = 'RUNNING'"):
        assert time.monotonic() < deadline
        if select.select([terminal], [], [], 0.1)[0]:
            os.read(terminal, 1000)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 143
    ended = {run.info.run_name: run.info.status for run in store.search("")}
    assert {name for name, status in ended.items() if status == "KILLED"} == {"tiny", "a"}
    assert set(ended.values()) == {"KILLED", "FINISHED"}
    again = holdfast(tmp_path, str(tmp_path), "study", "tiny.yaml")
    assert again.code == 0, again.stderr
    assert "data: started" not in again.stderr
    assert re.search(r"base evaluation +found", again.stderr)
    assert "\nevaluate: started" not in again.stderr
    assert store.search("attributes.status = 'RUNNING'") == []
