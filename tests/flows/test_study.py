"""A whole study through the command line: real processes, a real server, DVC and MLflow in a repository of its own."""

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest
import yaml
from repositories import CommandResult, holdfast, new_repository
from typer.testing import CliRunner

from flows.commands.main import app
from holdfast.config.refs import ModelRef
from tasks.tracking import Store

SFT = {"max_steps": 2, "per_device_train_batch_size": 4}
ROLLOUTS = {"kind": "rollouts", "arm": "rft", "keep": "all", "per_prompt": 1}
STUDY = {
    "name": "tiny",
    "target": {"train": 8, "validation": 2, "test": 4},
    "prior": [{"benchmark": "color", "questions": 4}],
    "arms": {
        "rft": [{"method": "grpo", "trainer": {**SFT, "num_generations": 4, "max_completion_length": 16}}],
        "rollouts": [
            {
                "method": "sft",
                "source": {"kind": "rollouts", "arm": "rft", "keep": "all", "per_prompt": 1},
                "trainer": SFT,
            }
        ],
        "twice": [
            {"method": "sft", "source": "answers", "trainer": SFT},
            {"method": "sft", "source": "answers", "trainer": SFT},
        ],
    },
    "evaluation": {"keep": 1, "every": 1, "max_new_tokens": 16, "drift_prompts": 2},
    "influence": {"every": 1, "samples": 4, "questions": 2},
    "compute": {"device": "cpu"},
}


class Repository(NamedTuple):
    root: Path
    first: CommandResult
    second: CommandResult
    """With a further prior benchmark, and an arm that cannot work: a random model does not reason."""


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory, tiny_model: ModelRef) -> Repository:
    """A study that is run twice."""
    root = tmp_path_factory.mktemp("repository")
    new_repository(root, {**STUDY, "model": {"path": tiny_model.path}})
    with tempfile.TemporaryDirectory(prefix="hf") as places:
        first = holdfast(root, places, "study", "tiny.yaml")
        more = "prior=[{benchmark: color, questions: 4}, {benchmark: presence, questions: 3, validation: 2}]"
        failing = "arms.self=[{method: sft, source: self}]"
        second = holdfast(root, places, "study", "tiny.yaml", "--set", more, "--set", failing)
    return Repository(root, first, second)


@pytest.fixture
def store(studied: Repository, monkeypatch: pytest.MonkeyPatch) -> Store:
    # MLflow leaves the store that a process opened in its environment.
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Store(studied.root)


def test_a_study_ends_with_its_table_and_report(studied: Repository):
    code, stdout, stderr = studied.first
    assert code == 0, stderr
    for name in ("base", "rft", "rollouts", "twice"):
        assert name in stdout
    assert studied.first.report.is_file()
    assert "To do: up to 15 of 15 stages" in stderr


def test_an_arm_that_fails_leaves_the_others_a_report_and_ends_with_code_1(studied: Repository):
    code, stdout, stderr = studied.second
    assert code == 1
    assert "rollouts" in stdout
    assert "holdfast: self failed: source self: none of 8 samples" in stderr
    assert "Traceback" not in stderr
    assert "<li>self: source self: none of 8 samples" in studied.second.report.read_text()


def test_a_further_prior_benchmark_trains_nothing_and_is_all_that_is_asked(studied: Repository, store: Store):
    lines = studied.second.stderr.splitlines()
    trainings = ("rft", "rollouts sample", "rollouts", "twice", "twice 1")
    assert all(f"{name}: found" in lines for name in trainings)
    assert not any(f"{name}: started" in lines for name in trainings)
    files = [file for run in children(store, 0) for file in store.artifacts.of(run).glob("records/*/*.parquet")]
    # The base and four trainings of two checkpoints: three test questions each, and two for validation.
    assert len(files) == 1 + 4 * 2
    assert {file.stem for file in files} == {"presence"}
    assert sum(pq.read_metadata(file).num_rows for file in files) == (3 + 2) * len(files)


def test_what_was_forgotten_of_it_stands_on_the_trainings(store: Store):
    trained = store.search("tags.`holdfast.kind` = 'train'")
    assert len(trained) == 4
    for run in trained:
        assert run.data.tags["holdfast.replicate"] == "1"
        history = store.client.get_metric_history(run.info.run_id, "forgetting/presence")
        later = run.data.tags["holdfast.stage"] == "1"
        assert sorted(point.step for point in history) == [1, 2] if later else [0, 1, 2]


def children(store: Store, number: int) -> list[Any]:
    """The finished stages below a study's run, counted from the latest."""
    study = store.search("tags.`holdfast.kind` = 'study'")[number]
    runs = store.search("attributes.status = 'FINISHED'")
    return [run for run in runs if run.data.tags.get("mlflow.parentRunId") == study.info.run_id]


def test_every_stage_is_a_finished_child_of_its_study(store: Store):
    study = store.search("tags.`holdfast.kind` = 'study'")[-1]
    assert study.info.status == "FINISHED"
    kinds = sorted(run.data.tags["holdfast.kind"] for run in children(store, -1))
    several = ["data"] * 2 + ["evaluate"] * 5 + ["influence"] * 4 + ["train"] * 4
    assert kinds == ["check", "compare", *several]
    assert {"report.html", "summary.json", "stages.json"} <= {p.name for p in store.artifacts.of(study).iterdir()}
    assert "report.html" in study.data.tags["mlflow.note.content"]


def test_influence_is_in_mlflow_and_in_the_report(studied: Repository, store: Store):
    runs = store.search("tags.`holdfast.kind` = 'influence'")
    names = {name for run in runs for name in run.data.metrics}
    # A random model's rollouts are all wrong: their advantages are 0, and a sum of nothing has no direction.
    everywhere, directed = ("norm", "lbk"), ("dot", "cosine", "exchange")
    for source, measures in {
        "grpo": everywhere,
        "rollouts": everywhere + directed,
        "answers": everywhere + directed,
    }.items():
        assert {f"influence/{source}/color/{measure}" for measure in measures} <= names
    assert 'id="influence"' in studied.first.report.read_text()


@pytest.mark.slow
def test_predictors_are_measured_of_a_finished_study_and_train_nothing(studied: Repository, store: Store):
    with tempfile.TemporaryDirectory(prefix="hf") as places:
        asked = holdfast(studied.root, places, "study", "tiny.yaml", "--set", "predictors={prompts: 3}")
        again = holdfast(studied.root, places, "compare", "tiny", "--predictors", "3")
    assert asked.code == 0, asked.stderr
    assert {"rft: found", "rft influence: found", "twice 1 influence: found"} <= set(asked.stderr.splitlines())
    trained = ("rft", "rollouts", "twice", "twice 1")
    started = {line.removesuffix(": started") for line in asked.stderr.splitlines() if line.endswith(": started")}
    assert started == {"check", "compare", *(f"{name} predictors" for name in trained)}
    assert 'id="predictors"' in asked.report.read_text()
    runs = store.search("tags.`holdfast.kind` = 'predictors'")
    assert len(runs) == 4
    for run in runs:
        history = store.client.get_metric_history(run.info.run_id, "predictors/kl_forward_prior")
        assert [point.step for point in sorted(history, key=lambda point: point.step)] == [1, 2]
    # From the records alone the same stages are found.
    assert again.code == 0, again.stderr
    assert all(f"{name} predictors: found" in again.stderr.splitlines() for name in trained)
    assert 'id="predictors"' in again.report.read_text()


@pytest.mark.slow
def test_a_past_training_is_traced_by_its_run(studied: Repository, store: Store):
    trained = store.search("tags.`holdfast.kind` = 'train' and tags.`holdfast.arm` = 'twice'")[0].info.run_id
    with tempfile.TemporaryDirectory(prefix="hf") as places:
        arguments = ("influence", trained, "--step", "2", "--set", "samples=2", "--set", "questions=2")
        code, stdout, stderr = holdfast(studied.root, places, *arguments)
        refused = holdfast(studied.root, places, "influence", trained, "--set", "sample=2")
    assert code == 0, stderr
    assert "answers on color" in stdout
    assert refused.code == 2
    assert "did you mean 'samples'?" in refused.stderr


def test_samples_became_a_version_of_the_data(studied: Repository):
    files = yaml.safe_load((studied.root / "data.dvc").read_text())["meta"]["files"]
    # The further benchmark made another directory of data, beside whose shards they lie as well.
    samples = [Path(name) for name in files if "samples-" in name]
    assert len({path.parent for path in samples}) == len(samples) == 2
    assert len({path.name for path in samples}) == 1


def test_nothing_is_left_running(store: Store):
    assert not store.search("attributes.status = 'RUNNING'")


def test_results_can_be_shown_afterwards(studied: Repository, store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(studied.root)
    assert CliRunner().invoke(app, ["report", "tiny"]).exit_code == 0
    trained = store.search("tags.`holdfast.kind` = 'train'")[0].info.run_id
    shown = CliRunner().invoke(app, ["show", trained])
    assert "target/jigsaw/score" in shown.output
