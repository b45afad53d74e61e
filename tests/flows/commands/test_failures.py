"""What failed outside of Holdfast is told in a sentence."""

import sqlite3
from pathlib import Path

import pytest

from flows.commands.failures import outside


def test_an_open_database_whose_journal_cannot_be_made_cannot_be_written(tmp_path: Path):
    opened = sqlite3.connect(tmp_path / "mlflow.db")
    opened.execute("CREATE TABLE runs (id)")
    opened.commit()
    (tmp_path / "mlflow.db-journal").symlink_to(tmp_path / "nowhere" / "journal")
    with pytest.raises(sqlite3.OperationalError) as refused:
        opened.execute("INSERT INTO runs VALUES (1)")
    assert outside(refused.value).startswith("MLflow's database: cannot be written (unable to open database file)")


def test_a_fault_of_ours_is_no_failure_outside():
    assert outside(KeyError("step")) == ""
