"""What a stage's record says about a file is believed as long as its size and time are those that were recorded."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from holdfast.config import refs
from holdfast.config.refs import directory_digest, file_digest, known_digest, stamp_of


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    """A stage's directory with a checkpoint and its record."""
    kept = tmp_path / "checkpoints" / "step-000001"
    kept.mkdir(parents=True)
    (kept / "model.safetensors").write_bytes(b"weights")
    record(tmp_path)
    return tmp_path


def record(stage: Path) -> None:
    files = {path.relative_to(stage).as_posix(): path for path in stage.rglob("*.safetensors")}
    digests = {name: file_digest(path) for name, path in files.items()}
    stamps = {name: stamp_of(path) for name, path in files.items()}
    (stage / "result.json").write_text(json.dumps({"files": digests, "stamps": stamps}))


def test_a_file_of_the_recorded_size_and_time_is_not_read(stage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = directory_digest(stage / "checkpoints" / "step-000001")
    monkeypatch.setattr(refs, "file_digest", lambda path: pytest.fail(f"{path} was read"))
    assert directory_digest(stage / "checkpoints" / "step-000001") == wanted


def test_a_file_that_changed_is_read_whatever_is_recorded(stage: Path) -> None:
    weights = stage / "checkpoints" / "step-000001" / "model.safetensors"
    before = known_digest(weights)
    weights.write_bytes(b"WEIGHTS")
    os.utime(weights, ns=(1, 1))
    assert known_digest(weights) == file_digest(weights) != before


@pytest.mark.parametrize("content", ["", "[]", '{"files": {}, "stamps": {"a": 1}}', '{"stamps": []}'])
def test_another_file_of_that_name_says_nothing(stage: Path, content: str) -> None:
    (stage / "result.json").write_text(content)
    weights = stage / "checkpoints" / "step-000001" / "model.safetensors"
    assert known_digest(weights) == file_digest(weights)


def test_a_process_hashes_a_large_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refs, "LARGE", 3)
    (tmp_path / "large").write_bytes(b"large")
    wanted = known_digest(tmp_path / "large")
    monkeypatch.setattr(refs, "file_digest", lambda path: pytest.fail(f"{path} was read"))
    assert known_digest(tmp_path / "large") == wanted
