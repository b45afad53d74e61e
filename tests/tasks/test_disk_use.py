"""What each study takes of the disk, of runs that say it themselves and of those whose tags do."""

import json
from pathlib import Path

import pytest

from tasks.disk_use import by_study
from tasks.tracking import Store, open_store


def run_of(store: Store, tags: dict[str, str], config: str | None, size: int) -> str:
    run_id = store.begin("experiment", "a run", tags)
    if config is not None:
        store.artifacts.text(run_id, config, "config.json")
    store.artifacts.text(run_id, "x" * size, "file.txt")
    return run_id


def test_files_are_counted_where_their_study_made_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mlruns").mkdir()
    store = open_store(tmp_path)
    small, large = (json.dumps({"name": name}) for name in ("small", "large"))
    run_of(store, {}, small, 1000)
    run_of(store, {}, large, 3000)
    run_of(store, {}, large, 3000)
    run_of(store, {"holdfast.study": "tagged"}, None, 500)
    broken = run_of(store, {"holdfast.study": "broken"}, "{", 200)
    store.client.delete_run(broken)
    (tmp_path / "data" / "small-0123abcd").mkdir(parents=True)
    (tmp_path / "data" / "small-0123abcd" / "target-test.parquet").write_bytes(b"1" * 50)
    assert by_study(tmp_path, store) == {
        "large": 2 * (3000 + len(large)),
        "small": 1000 + len(small) + 50,
        "tagged": 500,
        "broken": 201,
    }
