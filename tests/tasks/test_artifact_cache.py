"""Whoever keeps a run's artifacts names them; the names may lead nowhere else."""

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from holdfast.config.refs import file_digest
from holdfast.config.results import Checkpoint, Result
from holdfast.errors import UserError
from tasks.artifact_cache import ArtifactCache
from tasks.stage_cache import intact_result


class Artifact(NamedTuple):
    path: str
    is_dir: bool = False


class HostileServer:
    """Lists what it likes, and hands out one file under any name."""

    def __init__(self, names: list[Artifact], file: Path) -> None:
        self.names, self.file = names, file

    def list_artifacts(self, _run: str, folder: str | None) -> list[Artifact]:
        return self.names if folder is None else []

    def download_artifacts(self, _run: str, path: str, target: str) -> str:
        return shutil.copy(self.file, Path(target) / Path(path).name)


@pytest.mark.parametrize("name", ["../stolen", "a/../../stolen", "/tmp/stolen", "..", "a/.."])
def test_an_artifact_that_leads_out_of_its_run_is_refused_and_nothing_is_kept(tmp_path: Path, name: str):
    file = tmp_path / "file"
    file.write_text("harmless")
    cache = ArtifactCache(tmp_path / "cache", HostileServer([Artifact("fine"), Artifact(name)], file))
    with pytest.raises(UserError, match="leads out of its run's artifacts"):
        cache.get("run", finished=True)
    assert not (tmp_path / "cache" / "run").exists()
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"file", "fine", "run.lock"}


def test_a_result_that_names_files_outside_its_run_is_none(tmp_path: Path):
    outside, place = tmp_path / "outside", tmp_path / "run"
    outside.write_text("another's")
    place.mkdir()
    digest = file_digest(outside)
    for result in (
        Result(files={"../outside": digest}),
        Result(files={str(outside): digest}),
        Result(checkpoints=(Checkpoint(step=1, path="..", digest="d"),)),
    ):
        (place / "result.json").write_text(result.model_dump_json())
        assert intact_result(place) is None
    (place / "result.json").write_text(Result().model_dump_json())
    assert intact_result(place) is not None
