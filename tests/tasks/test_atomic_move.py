"""Moves between two real file systems: the tests' own and the one in memory."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.atomic_move import move

ELSEWHERE = Path("/dev/shm")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A directory on another file system."""
    if not ELSEWHERE.is_dir() or ELSEWHERE.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("this machine has no second file system at /dev/shm")
    with tempfile.TemporaryDirectory(dir=ELSEWHERE) as place:
        yield Path(place)


def test_a_file_moves_across_file_systems_and_replaces_what_was_there(tmp_path: Path, elsewhere: Path):
    (elsewhere / "shard").write_text("new")
    (tmp_path / "shard").write_text("old")
    move(elsewhere / "shard", tmp_path / "shard")
    assert (tmp_path / "shard").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["shard"]
    assert not list(elsewhere.iterdir())


def test_a_directory_moves_across_file_systems_whole(tmp_path: Path, elsewhere: Path):
    (elsewhere / "made" / "deep").mkdir(parents=True)
    (elsewhere / "made" / "deep" / "shard").write_text("new")
    # What an earlier attempt left when it was killed.
    (tmp_path / "made.partial").mkdir()
    (tmp_path / "made.partial" / "old").touch()
    move(elsewhere / "made", tmp_path / "made")
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == [
        "made",
        "made/deep",
        "made/deep/shard",
    ]
    assert not list(elsewhere.iterdir())


def test_a_move_that_fails_halfway_leaves_the_old_file_and_the_source(
    tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
):
    (elsewhere / "shard").write_text("new")
    (tmp_path / "shard").write_text("old")

    def full(_source: object, target: Path) -> None:
        Path(target).write_text("n")
        raise OSError("no space left on device")

    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(OSError, match="no space"):
        move(elsewhere / "shard", tmp_path / "shard")
    assert (tmp_path / "shard").read_text() == "old"
    assert (elsewhere / "shard").read_text() == "new"


def test_a_missing_source_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        move(tmp_path / "nothing", tmp_path / "target")
