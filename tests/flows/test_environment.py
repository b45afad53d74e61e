"""What a command makes of its environment: proxies, users without a name or a home, a terminal that closes."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from repositories import new_repository
from test_study import STUDY

from flows import environment
from holdfast.artifacts import ModelRef
from tasks.tracking import Store


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch):
    """`prepare` changes the environment of its process."""
    before, handler = dict(os.environ), signal.getsignal(signal.SIGHUP)
    yield
    os.environ.clear()
    os.environ.update(before)
    signal.signal(signal.SIGHUP, handler)


def test_no_proxy_is_asked_for_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "socks://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "example.org")
    monkeypatch.delenv("NO_PROXY", raising=False)
    environment.prepare(tmp_path)
    for name in ("no_proxy", "NO_PROXY"):
        assert os.environ[name].split(",") == ["example.org", "127.0.0.1", "localhost", "::1"]
    assert os.environ["ALL_PROXY"] == "socks5://127.0.0.1:9"


def test_without_a_home_libraries_write_below_mlruns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HOME")
    environment.prepare(tmp_path)
    assert os.environ["HOME"] == str(tmp_path / "mlruns" / "home")
    assert (tmp_path / "mlruns" / "home").is_dir()


def test_a_user_without_a_name_is_called_by_number(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def nobody(uid: int) -> pwd.struct_passwd:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    environment.prepare(tmp_path)
    assert os.environ["LOGNAME"] == f"uid-{os.getuid()}"


@pytest.mark.slow
def test_a_terminal_that_closes_leaves_no_run_running(
    tiny_model: ModelRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = {"method": "sft", "source": "answers", "trainer": {"max_steps": 5000, "per_device_train_batch_size": 4}}
    new_repository(tmp_path, {**STUDY, "arms": {"long": [long]}, "model": {"path": tiny_model.path}})
    with tempfile.TemporaryDirectory(prefix="hf") as places:
        given = {**os.environ, "PREFECT_HOME": str(tmp_path / ".prefect"), "TMPDIR": places}
        for name in ("PREFECT_API_URL", "PREFECT_LOGGING_LEVEL", "MLFLOW_TRACKING_URI"):
            given.pop(name, None)
        command = [sys.executable, "-m", "flows", "study", "tiny.yaml"]
        process = subprocess.Popen(command, cwd=tmp_path, env=given, stderr=subprocess.PIPE, text=True)
        _wait_for_training(tmp_path)
        process.send_signal(signal.SIGHUP)
        _, told = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "Traceback" not in told
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    ended = {run.info.run_name: run.info.status for run in Store(tmp_path).search("")}
    assert ended["long"] == ended["tiny"] == "KILLED"
    assert "RUNNING" not in ended.values()


def _wait_for_training(root: Path) -> None:
    for _ in range(1200):
        journals = (root / "mlruns" / "work").glob("*.partial/metrics.jsonl")
        if any('"train/loss"' in journal.read_text() for journal in journals):
            return
        time.sleep(0.1)
    raise AssertionError("no training began within two minutes")
