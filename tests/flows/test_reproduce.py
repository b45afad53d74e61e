"""What is recorded of a study is run again: refusals on a small record, and the smoke study for real."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from recorded_studies import STUDY, Recorded, record_study
from repositories import CommandResult, holdfast, new_repository
from typer.testing import CliRunner

from flows.commands.main import app
from flows.commands.reproduce import _run
from flows.rerun import Part, needed_arms, restricted
from holdfast.config.study import Study
from tasks import certificate, code_version
from tasks.tracking import Store, open_store

SMOKE = Path(__file__).parents[2] / "experiments" / "smoke.yaml"


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    root = tmp_path_factory.mktemp("recorded")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield record_study(root, open_store(root))


@pytest.fixture
def recorded(record: Recorded, monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorded]:
    """A record whose certificate and data a test may change."""
    monkeypatch.chdir(record.root)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    issued = record.artifacts(record.parent) / certificate.ARTIFACT
    before = issued.read_text()
    yield record
    issued.write_text(before)


def issue(recorded: Recorded, **changes: Any) -> None:
    """Change the recorded certificate."""
    path = recorded.artifacts(recorded.parent) / certificate.ARTIFACT
    content = json.loads(path.read_text())
    parts = {name: value for name, value in changes.items() if name in content["parts"]}
    content["parts"] |= parts
    content |= {name: value for name, value in changes.items() if name not in parts}
    path.write_text(json.dumps(content))


def refusal(recorded: Recorded, *arguments: str) -> str:
    """The one line of a refused command, which changed nothing."""
    before = contents(recorded.root)
    done = CliRunner().invoke(app, ["reproduce", *arguments])
    assert done.exit_code == 2, done.output
    assert done.output.count("\n") == 1
    assert contents(recorded.root) == before
    return done.output


def contents(root: Path) -> set[Path]:
    return {path for path in root.rglob("*") if "mlflow.db" not in path.name}


def test_what_is_not_there_is_refused(recorded: Recorded):
    assert "no study of this name or run id has a report" in refusal(recorded, "nothing")
    assert "0 runs" in refusal(recorded, "abcdef12")


def test_a_deleted_run_is_refused_with_the_way_back(recorded: Recorded):
    run_id = recorded.trained.run_id
    recorded.store.client.delete_run(run_id)
    assert "is deleted" in refusal(recorded, run_id)
    recorded.store.client.restore_run(run_id)


def test_a_study_without_a_certificate_or_configuration_is_refused(recorded: Recorded):
    for name, told in ((certificate.ARTIFACT, "has no certificate"), ("config.json", "config.json is gone")):
        path = recorded.artifacts(recorded.parent) / name
        text = path.read_text()
        path.unlink()
        assert told in refusal(recorded, STUDY.name)
        path.write_text(text)


def test_code_that_moved_on_is_named_with_its_commit(recorded: Recorded, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(code_version, "is_changed", lambda: False)
    code = dict.fromkeys(("train", "evaluate", "compare"), "0" * 64)
    issue(recorded, code=code, commit=code_version.commit(), changed=False)
    said = refusal(recorded, STUDY.name)
    assert "study: the code here is not what ran (evaluate, train), at commit" in said
    assert code_version.commit()[:12] in said
    assert "--worktree" in said


def test_another_lock_file_is_named(recorded: Recorded):
    issue(recorded, lock="0" * 64)
    assert "not what ran (requirements.lock)" in refusal(recorded, STUDY.name)


def test_changes_that_are_not_committed_are_told(recorded: Recorded, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(code_version, "is_changed", lambda: True)
    issue(recorded, lock="0" * 64)
    assert "changes that are not committed; commit or stash them" in refusal(recorded, STUDY.name)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"commit": "0" * 40, "changed": False}, "its commit 000000000000 is no longer in git"),
        ({"changed": True, "commit": "f" * 40}, "changes that are in no commit"),
        ({"commit": ""}, "ran from no git repository"),
    ],
)
def test_no_worktree_is_made_for_code_that_git_does_not_have(recorded: Recorded, changes: dict, told: str):
    issue(recorded, **changes)
    assert told in refusal(recorded, STUDY.name, "--worktree")


def test_data_that_nothing_has_are_refused(recorded: Recorded):
    shard = recorded.root / "data" / "study-01234567" / "target-test.parquet"
    content = shard.read_bytes()
    shard.unlink()
    said = refusal(recorded, STUDY.name)
    shard.write_bytes(content)
    assert "data/study-01234567/target-test.parquet: neither DVC's cache nor a remote" in said


def test_a_server_that_does_not_answer_is_told(recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    for verb in ("reproduce", "verify"):
        done = CliRunner().invoke(app, [verb, STUDY.name])
        assert (done.exit_code, done.output.count("\n")) == (2, 1)
        assert "no MLflow server answers there" in done.output


def test_the_new_process_knows_no_store_and_no_remote_of_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("MLFLOW_TRACKING_URI", "HOLDFAST_DVC_PUSH", "HF_HOME"):
        monkeypatch.setenv(name, "true")
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nenv > {tmp_path}/environment\n")
    python.chmod(0o755)
    assert _run(tmp_path, python, tmp_path, tmp_path) == 0
    names = {line.partition("=")[0] for line in (tmp_path / "environment").read_text().splitlines()}
    assert "HF_HOME" in names
    assert not {"MLFLOW_TRACKING_URI", "HOLDFAST_DVC_PUSH"} & names


def test_a_training_needs_the_arms_that_it_samples_and_no_later_stage():
    sft = {"method": "sft", "source": "answers"}
    arms = {
        "alone": [sft],
        "rollouts": [{"method": "sft", "source": {"kind": "rollouts", "arm": "rft"}}, sft],
        "rft": [{"method": "grpo"}],
    }
    study = Study.model_validate({"name": "x", "arms": arms})
    assert needed_arms(study, "rollouts") == ["rft", "rollouts"]
    part = restricted(study, Part(scope="training", arm="rollouts", stage=0))
    assert {arm: len(stages) for arm, stages in part.arms.items()} == {"rft": 1, "rollouts": 1}


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smoke study, after which the data moved on."""
    root = tmp_path_factory.mktemp("repository")
    new_repository(root, yaml.safe_load(SMOKE.read_text()))
    (root / ".gitignore").write_text("/data/\n/mlruns/*\n")
    with tempfile.TemporaryDirectory(prefix="hf") as places:
        done = holdfast(root, places, "study", "smoke.yaml")
        assert done.code == 0, done.stderr
        shutil.rmtree(root / "data")
        (root / "data.dvc").unlink()
        moved = holdfast(root, places, "data", "smoke.yaml", "--set", "target.train=32")
        assert moved.code == 0, moved.stderr
    return root


def reproduced(root: Path, name: str) -> tuple[CommandResult, dict[str, Any]]:
    pointer = (root / "data.dvc").read_text()
    data = contents(root / "data")
    with tempfile.TemporaryDirectory(prefix="hf") as places:
        # As every worker of a team has it set; a reproduction's own repository has no remote.
        done = holdfast(root, places, "reproduce", name, HOLDFAST_DVC_PUSH="true")
    assert done.code == 0, done.stdout + done.stderr
    assert "found" not in done.stderr, "something was found that ran before"
    assert (root / "data.dvc").read_text() == pointer
    assert contents(root / "data") == data
    place = Path(done.stdout.rsplit("It ran in ", 1)[1].strip().removesuffix("."))
    return done, json.loads((place / "comparison.json").read_text())


def store_of(root: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    # MLflow leaves the store that a process opened in its environment.
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Store(root)


@pytest.mark.slow
def test_the_smoke_study_comes_out_the_same_after_the_data_moved_on(studied: Path, monkeypatch: pytest.MonkeyPatch):
    done, found = reproduced(studied, "smoke")
    assert found["within"]
    assert {row["metric"] for row in found["metrics"]} >= {
        *("target/jigsaw/score", "prior/color/accuracy", "prior/mean/accuracy", "retention", "forgetting/mean"),
    }
    assert all(row["again"] == row["recorded"] for row in found["metrics"])
    kinds = {one["what"]: one for one in found["bytes"]}
    assert kinds.keys() >= {"data", "checkpoints", "samples", "records", "influence"}
    assert all(one["files"] and not one["differing"] for one in kinds.values()), kinds
    place = Path(done.stdout.rsplit("It ran in ", 1)[1].strip().removesuffix("."))
    tags = [
        run.data.tags[certificate.TAG]
        for root in (studied, place)
        for run in store_of(root, monkeypatch).search("tags.`holdfast.kind` = 'study'")
        if certificate.TAG in run.data.tags
    ]
    assert len(tags) == 2
    assert len(set(tags)) == 1


@pytest.mark.slow
def test_one_training_is_run_with_what_it_learns_from(studied: Path, monkeypatch: pytest.MonkeyPatch):
    store = store_of(studied, monkeypatch)
    trained = store.search("tags.`holdfast.kind` = 'train' and tags.`holdfast.arm` = 'rollouts'")[0].info.run_id
    done, found = reproduced(studied, trained)
    assert found["within"]
    assert {row["arm"] for row in found["metrics"]} == {"base", "rollouts"}
    assert all(row["again"] == row["recorded"] for row in found["metrics"])
    assert not any(one["differing"] for one in found["bytes"])
    for arm in ("teacher", "answers", "self"):
        assert f"{arm}: started" not in done.stderr
    assert "rft: started" in done.stderr


@pytest.mark.slow
def test_the_smoke_study_is_whole_and_names_a_flipped_bit(studied: Path, monkeypatch: pytest.MonkeyPatch):
    store = store_of(studied, monkeypatch)
    run = store.search("tags.`holdfast.kind` = 'train' and tags.`holdfast.arm` = 'self'")[0]
    weights = next(store.artifacts.of(run).glob("checkpoints/*/*.safetensors"))
    with tempfile.TemporaryDirectory(prefix="hf") as places:
        whole = holdfast(studied, places, "verify", "smoke.yaml")
        content = weights.read_bytes()
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        damaged = holdfast(studied, places, "verify", "smoke")
        weights.write_bytes(content)
    assert whole.code == 0, whole.stdout + whole.stderr
    assert damaged.code == 1
    assert f"{weights.parent.name}/{weights.name} differs" in damaged.stdout


def test_a_worktree_has_the_code_of_its_commit(tmp_path: Path):
    subprocess.run(["git", "init", "-q", str(tmp_path / "code")], check=True)
    code = tmp_path / "code"
    author = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    commits = []
    for text in ("first", "second"):
        (code / "holdfast.txt").write_text(text)
        subprocess.run(["git", "-C", str(code), "add", "-A"], check=True)
        subprocess.run(["git", "-C", str(code), *author, "commit", "-q", "-m", text], check=True)
        code_version.commit.cache_clear()
        commits.append(code_version.commit(code))
    code_version.add_worktree(tmp_path / "tree", commits[0], code)
    assert (tmp_path / "tree" / "holdfast.txt").read_text() == "first"
    assert (code / "holdfast.txt").read_text() == "second"
    assert not code_version.has_commit("0" * 40, code)
