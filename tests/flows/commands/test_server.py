"""The Prefect server of one command."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import httpx
import prefect
import psutil
import pytest

from flows.commands.server import prefect_server


def test_a_database_that_a_newer_prefect_has_changed_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two environments share a home, and the one with vLLM has an older Prefect."""
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    with closing(sqlite3.connect(tmp_path / "prefect.db")) as newer:
        newer.execute("CREATE TABLE alembic_version (version_num TEXT)")
        newer.execute("INSERT INTO alembic_version VALUES ('ffffffffffff')")
        newer.commit()
    before = (tmp_path / "prefect.db").read_bytes()
    with prefect_server() as ready:
        ready()
        from prefect.settings import PREFECT_API_URL

        flow = httpx.post(f"{PREFECT_API_URL.value()}/flows/", json={"name": "kept"})
    assert flow.status_code == 201
    assert (tmp_path / "prefect.db").read_bytes() == before
    with closing(sqlite3.connect(tmp_path / f"prefect-{prefect.__version__}.db")) as own:
        assert own.execute("SELECT name FROM flow").fetchall() == [("kept",)]


def test_a_server_that_dies_is_started_again_and_knows_what_it_was_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    with prefect_server() as ready:
        ready()
        from prefect.settings import PREFECT_API_URL

        flows = f"{PREFECT_API_URL.value()}/flows/"
        told = httpx.post(flows, json={"name": "kept"}).json()
        [first] = servers()
        first.kill()
        first.wait(10)
        deadline = time.monotonic() + 60
        while servers() in ([], [first]) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert httpx.get(f"{flows}{told['id']}", timeout=60).json()["name"] == "kept"
    assert servers() == []


def servers() -> list[psutil.Process]:
    return [one for one in psutil.Process().children() if "flows.commands.server" in one.cmdline()]


@pytest.mark.slow
def test_the_shared_database_is_used_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    for _ in range(2):
        with prefect_server() as ready:
            ready()
    assert [file.name for file in tmp_path.glob("*.db")] == ["prefect.db"]
