"""A past version of the data, from a real DVC repository whose data.dvc names another one by now."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from holdfast.config.refs import DataRef, content_key, file_digest
from holdfast.errors import UserError
from tasks import data_version
from tasks.data_restore import restore_data

pytestmark = pytest.mark.slow

NAMES = ("target-test.parquet", "target-train.parquet")


class Repository(NamedTuple):
    root: Path
    recorded: DataRef
    files: dict[str, str]
    """DVC's md5 of the past version's files."""
    pointer: str
    """data.dvc as it is now."""


def dvc(root: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=root, check=True, capture_output=True)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a past version in the cache and on a remote, and another in data/ and data.dvc."""
    root = tmp_path_factory.mktemp("template") / "repository"
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    dvc(root, "init", "-q")
    (root / ".gitignore").write_text("/data/\n/mlruns/*\n")
    place = root / "data" / "study-1"
    place.mkdir(parents=True)
    for name in NAMES:
        (place / name).write_text(f"{name} as it was")
    data_version.record(root, place.iterdir())
    (root / "past.dvc").write_text((root / "data.dvc").read_text())
    # DVC keeps it relative to .dvc.
    dvc(root, "remote", "add", "-q", "-d", "store", "../remote")
    dvc(root, "push", "-q", "data.dvc")
    shutil.rmtree(root / "data")
    (root / "data" / "study-2").mkdir(parents=True)
    (root / "data" / "study-2" / "target-test.parquet").write_text("other data")
    (root / "past.dvc").rename(root.parent / "past.dvc")
    dvc(root, "add", "-q", "data")
    return root.parent


@pytest.fixture
def repository(template: Path, tmp_path: Path) -> Repository:
    shutil.copytree(template, tmp_path / "copy", symlinks=True)
    root = tmp_path / "copy" / "repository"
    digests = {name: content(name) for name in NAMES}
    made = tmp_path / "made"
    made.mkdir()
    for name, text in digests.items():
        (made / name).write_text(text)
    recorded = DataRef(
        path=Path("/elsewhere/data/study-1"), digest=content_key({name: file_digest(made / name) for name in NAMES})
    )
    files = {f"study-1/{name}": file_digest(made / name, "md5") for name in NAMES}
    samples = {"study-1/samples-01234567.parquet": "0" * 32}
    return Repository(root, recorded, files | samples, (root / "data.dvc").read_text())


def content(name: str) -> str:
    return f"{name} as it was"


def restore(repository: Repository, into: Path) -> DataRef:
    return restore_data(repository.recorded, repository.files, repository.root, into)


def is_untouched(repository: Repository) -> bool:
    data = {path.relative_to(repository.root).as_posix() for path in (repository.root / "data").rglob("*.parquet")}
    return (repository.root / "data.dvc").read_text() == repository.pointer and data == {
        "data/study-2/target-test.parquet"
    }


def test_it_comes_back_from_the_cache_and_the_working_tree_stays(repository: Repository, tmp_path: Path):
    into = tmp_path / "into"
    restored = restore(repository, into)
    assert restored == DataRef(path=into / "data" / "study-1", digest=repository.recorded.digest)
    assert {path.name: path.read_text() for path in restored.path.iterdir()} == {name: content(name) for name in NAMES}
    assert is_untouched(repository)
    assert (data_version.listing(into) or {}).keys() == {f"study-1/{name}" for name in NAMES}
    # What is interrupted is continued.
    assert restore(repository, into) == restored


def test_dvc_itself_takes_the_new_directory_for_a_repository_with_these_data(repository: Repository, tmp_path: Path):
    into = repository.root / "mlruns" / "reproduced" / "study"
    restored = restore(repository, into)
    (restored.path / "samples-89abcdef.parquet").write_text("samples")
    data_version.record(into, [restored.path / "samples-89abcdef.parquet"])
    assert len(data_version.listing(into) or {}) == 3
    assert is_untouched(repository)


def test_it_comes_back_from_a_remote(repository: Repository, tmp_path: Path):
    shutil.rmtree(repository.root / ".dvc" / "cache")
    assert restore(repository, tmp_path / "into").digest == repository.recorded.digest
    assert is_untouched(repository)
    assert not list((repository.root / "mlruns").iterdir())


def test_a_version_that_nothing_has_is_one_sentence_and_changes_nothing(repository: Repository, tmp_path: Path):
    shutil.rmtree(repository.root / ".dvc" / "cache")
    shutil.rmtree(repository.root.parent / "remote")
    with pytest.raises(UserError, match=r"data/study-1/target-\w+\.parquet: neither DVC's cache nor a remote has"):
        restore(repository, tmp_path / "into")
    assert is_untouched(repository)
    assert not (tmp_path / "into").exists()
