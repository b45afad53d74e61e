"""Kept files are linked into the store, not copied, and not read again while their size and time stay the same."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from stage_runs import run

from holdfast.config.refs import file_digest, stamp_of
from holdfast.config.results import Result
from tasks import artifacts, stage_cache
from tasks.artifact_cache import link
from tasks.stage import Context
from tasks.stage_cache import changed_files

WEIGHTS = "checkpoints/step-000006/model.safetensors"


def test_kept_weights_are_the_same_file_in_the_store_as_where_they_were_written(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    inodes: dict[str, int] = {}

    def watched(source: Path, target: Path) -> None:
        inodes[target.name] = source.stat().st_ino
        link(source, target)

    monkeypatch.setattr(artifacts, "link", watched)
    done = run(context)
    assert (done.path / "result.json").stat().st_ino == inodes["result.json"]
    assert (done.path / WEIGHTS).stat().st_nlink == 1


def test_a_link_replaces_what_an_interrupted_attempt_left_and_is_a_copy_where_none_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "source", tmp_path / "deep" / "target"
    source.write_text("new")
    target.parent.mkdir()
    target.write_text("old")
    for _ in range(2):
        link(source, target)
        assert target.stat().st_ino == source.stat().st_ino
    assert [path.name for path in target.parent.iterdir()] == ["target"]

    def refused(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refused)
    source.write_text("newer")
    target.unlink()
    link(source, target)
    assert target.read_text() == "newer"
    assert stamp_of(target) == stamp_of(source)


def test_files_of_the_recorded_size_and_time_are_not_read_and_a_copys_time_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "weights"
    file.write_text("weights")
    result = Result(files={"weights": file_digest(file)}, stamps={"weights": stamp_of(file)})
    os.utime(file, ns=(5, 5))
    assert changed_files(tmp_path, result) == []
    assert stamp_of(file) == result.stamps["weights"]
    with monkeypatch.context() as patch:
        patch.setattr(stage_cache, "file_digest", lambda path: pytest.fail(f"{path} was read"))
        assert changed_files(tmp_path, result) == []
    file.write_text("WEIGHTS")
    os.utime(file, ns=(result.stamps["weights"][1],) * 2)
    # Only `holdfast verify` reads it now, and then sets its time.
    assert changed_files(tmp_path, result) == []
    file.touch()
    assert changed_files(tmp_path, result) == ["weights"]
