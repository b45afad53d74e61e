"""A recorded study, damaged in one place at a time: verification names the place, and nothing else."""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from huggingface_hub import constants
from recorded_studies import CHECKPOINT, STUDY, Recorded, record_study
from servers import mlflow_server
from typer.testing import CliRunner

from flows.commands.main import app
from tasks import certificate, verification
from tasks.garbage import retired_checkpoints
from tasks.needed_runs import needed_runs
from tasks.recorded import COMPARED, recorded_studies
from tasks.tracking import Store
from tasks.verification import Checked, Verifier


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Recorded]:
    root = tmp_path_factory.mktemp("recorded")
    (root / "mlruns").mkdir()
    (root / "mlruns" / "mlflow.db").write_bytes(empty_store.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield record_study(root, Store(root))


def verified(recorded: Recorded) -> list[Checked]:
    [study] = recorded_studies(STUDY.name, recorded.store)
    return list(Verifier(study, recorded.store, recorded.root, lambda _what: None).check())


def wrong(recorded: Recorded) -> list[tuple[str, str]]:
    return [(one.what, name) for one in verified(recorded) for name in one.wrong]


def weights(recorded: Recorded) -> Path:
    return recorded.trained.path / CHECKPOINT / "model.safetensors"


def answers(recorded: Recorded) -> Path:
    [study] = recorded_studies(STUDY.name, recorded.store)
    return next(one.file.path for one in study.finished.evaluated if one.arm == "answers")


def shard(recorded: Recorded) -> Path:
    return recorded.root / "data" / "study-01234567" / "target-test.parquet"


def report(recorded: Recorded) -> Path:
    return recorded.artifacts(recorded.parent) / "report.html"


@contextmanager
def changed(path: Path, content: bytes | None) -> Iterator[None]:
    """A file with another content, or gone, for as long as the block lasts."""
    before = path.read_bytes()
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    yield
    path.write_bytes(before)


def flipped(path: Path) -> bytes:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    return bytes(content)


def test_a_study_as_it_was_recorded_is_whole(recorded: Recorded):
    found = {one.what: one for one in verified(recorded)}
    assert not any(one.wrong for one in found.values())
    assert {name: one.files for name, one in found.items() if name != "base"} == {
        "certificate": 1,
        "data": 3,
        "train answers": 2,
        "evaluate base": 1,
        "evaluate answers": 1,
        "report": 4,
    }
    metrics = (recorded.trained.path / "metrics.jsonl").stat().st_size
    assert found["train answers"].size == len(b"weights" * 1000) + metrics


DAMAGED: dict[str, tuple[Callable[[Recorded], Path], str, str]] = {
    "weights": (weights, "train answers", f"{CHECKPOINT}/model.safetensors differs"),
    "records": (answers, "evaluate answers", "records/step-000004/color.parquet differs"),
    "data": (shard, "data", "data/study-01234567/target-test.parquet differs"),
    "report": (report, "report", "report.html differs"),
    "result": (lambda one: one.trained.path / "result.json", "train answers", "result.json"),
}


@pytest.mark.parametrize("place", DAMAGED)
def test_one_flipped_bit_is_found_and_named(recorded: Recorded, place: str):
    path, what, name = DAMAGED[place]
    with changed(path(recorded), flipped(path(recorded))):
        found = wrong(recorded)
    assert found[0][0] == what
    assert found[0][1].startswith(name)
    # What result.json says of checkpoints leads to their evaluations.
    assert len(found) == 1 or place == "result"
    assert wrong(recorded) == []


@pytest.mark.parametrize("place", ["weights", "records", "data", "report"])
def test_a_missing_file_is_named(recorded: Recorded, place: str):
    path, what, name = DAMAGED[place]
    with changed(path(recorded), None):
        [(found, said)] = wrong(recorded)
    assert found == what
    assert said.startswith(name.removesuffix(" differs"))


def test_a_checkpoint_that_the_studys_own_setting_let_go_is_not_missing(
    recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(recorded.root)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copytree(recorded.trained.path, tmp_path / "kept")
    compared = recorded.artifacts(recorded.parent) / COMPARED
    keeps_none = compared.read_bytes().replace(b'"checkpoints": "all"', b'"checkpoints": "best"', 1)
    with changed(compared, keeps_none):
        needed = needed_runs(recorded.store)
        [garbage] = retired_checkpoints(recorded.store, needed)
    garbage.remove()
    assert not weights(recorded).exists()
    [found] = [one for one in verified(recorded) if one.what == "train answers"]
    assert (found.files, found.wrong, found.let_go) == (1, (), 1)
    done = CliRunner().invoke(app, ["verify", STUDY.name])
    assert done.exit_code == 0, done.output
    assert "ok, 1 let go by `checkpoints`" in done.output
    with changed(recorded.trained.path / "metrics.jsonl", None):
        assert wrong(recorded) == [("train answers", "metrics.jsonl is missing")]
    shutil.rmtree(recorded.trained.path)
    shutil.copytree(tmp_path / "kept", recorded.trained.path)
    assert wrong(recorded) == []


def test_another_configuration_or_tag_contradicts_the_certificate(recorded: Recorded):
    config = recorded.artifacts(recorded.parent) / "config.json"
    with changed(config, config.read_bytes().replace(b'"seed": 0', b'"seed": 1', 1)):
        assert ("certificate", "config.json differs") in wrong(recorded)
    issued = recorded.store.run(recorded.parent).data.tags[certificate.TAG]
    recorded.store.tag(recorded.parent, {certificate.TAG: "0" * 64})
    assert wrong(recorded) == [("certificate", "the tag holdfast.certificate differs")]
    recorded.store.tag(recorded.parent, {certificate.TAG: issued})


def test_a_deleted_run_is_named(recorded: Recorded):
    run_id = recorded.trained.run_id
    recorded.store.client.delete_run(run_id)
    assert ("train answers", f"its run {run_id} is deleted") in wrong(recorded)
    recorded.store.client.restore_run(run_id)
    assert wrong(recorded) == []


def test_the_command_prints_a_table_and_its_exit_code_says_whether_all_is_whole(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(recorded.root)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name in (STUDY.name, recorded.parent[:8]):
        done = CliRunner().invoke(app, ["verify", name])
        assert done.exit_code == 0, done.output
        assert "all is as it was recorded" in done.output
    with changed(weights(recorded), flipped(weights(recorded))):
        done = CliRunner().invoke(app, ["verify", STUDY.name])
    assert done.exit_code == 1
    assert f"train answers: {CHECKPOINT}/model.safetensors differs" in done.output


def test_a_study_that_is_not_there_is_refused(recorded: Recorded, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(recorded.root)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name, told in (("nothing", "no study of this name"), ("0123abcd", "0 runs"), ("no.yaml", "no such file")):
        done = CliRunner().invoke(app, ["verify", name])
        assert done.exit_code == 2
        assert told in done.output
        assert done.output.count("\n") == 1


@pytest.mark.slow
def test_what_a_server_keeps_is_fetched_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "server").mkdir()
    (tmp_path / "clone").mkdir()
    with mlflow_server(tmp_path / "server") as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        served = record_study(tmp_path / "clone", Store(tmp_path / "clone"))
        assert wrong(served) == []
        kept = next((tmp_path / "server" / "artifacts").rglob("*.safetensors"))
        with changed(kept, flipped(kept)):
            assert wrong(served) == [("train answers", f"{CHECKPOINT}/model.safetensors differs")]
        with changed(kept, None):
            assert wrong(served) == [("train answers", f"{CHECKPOINT}/model.safetensors is missing")]


def test_a_base_from_the_hub_is_checked_in_the_local_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    commit, content = "a" * 40, b"weights"
    blob = tmp_path / "models--some--base" / "blobs" / hashlib.sha256(content).hexdigest()
    link = tmp_path / "models--some--base" / "snapshots" / commit / "model.safetensors"
    for path in (blob, link):
        path.parent.mkdir(parents=True)
    blob.write_bytes(content)
    link.symlink_to(blob)
    assert verification.hub_base("some/base", commit) == Checked("base", 1, len(content))
    blob.write_bytes(flipped(blob))
    assert verification.hub_base("some/base", commit).wrong == (f"{blob} differs",)
    assert "not in the local cache" in verification.hub_base("some/other", commit).wrong[0]
