"""The Prefect server of one command."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import httpx
import prefect
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


@pytest.mark.slow
def test_the_shared_database_is_used_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    for _ in range(2):
        with prefect_server() as ready:
            ready()
    assert [file.name for file in tmp_path.glob("*.db")] == ["prefect.db"]
