"""Studies on a Ray cluster of two nodes on this machine: `make test-ray`."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from repositories import CommandResult, holdfast, new_repository

from holdfast.config.refs import ModelRef
from tasks.tracking import Store

pytest.importorskip("ray", reason="Ray is not installed; `make test-ray` makes an environment with it")
pytestmark = pytest.mark.slow

TRAINER = {"max_steps": 2, "per_device_train_batch_size": 4}
STAGE = {"method": "sft", "source": "answers", "trainer": TRAINER}
STUDY = {
    "name": "tiny",
    "target": {"train": 8, "validation": 2, "test": 4},
    "prior": [{"benchmark": "color", "questions": 4}],
    "arms": {"one": [STAGE], "two": [{**STAGE, "trainer": {**TRAINER, "learning_rate": 1e-3}}]},
    "evaluation": {"keep": 1, "every": 1, "max_new_tokens": 16, "drift_prompts": 2},
    "compute": {"device": "cpu"},
}
RAY = ("--set", "compute.runner=ray")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two nodes with a CPU each on the loopback interface, without a dashboard."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    # Otherwise Ray takes 127.0.0.1 for this machine's address in its network, where nobody listens.
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    with tempfile.TemporaryDirectory(prefix="hf") as places:
        monkeypatch.setenv("TMPDIR", places)
        node = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "object_store_memory": 80 * 2**20}
        made = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
        made.settings = node
        made.second = made.add_node(**node)
        try:
            yield made
        finally:
            made.shutdown()


def store(root: Path) -> Store:
    # MLflow leaves the store that a process opened in its environment.
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    return Store(root)


def _nodes(root: Path) -> set[str]:
    found = store(root).search("attributes.status = 'FINISHED'")
    return {run.data.tags["holdfast.ray_node"] for run in found if "holdfast.ray_node" in run.data.tags}


def _numbers(result: CommandResult) -> Any:
    arms = json.loads((result.report.parent / "summary.json").read_text())["arms"]
    return {
        arm: {name: values.get(name) for name in ("score", "retention", "forgetting")} for arm, values in arms.items()
    }


def test_both_nodes_get_stages_and_the_study_is_the_one_of_this_machine(
    cluster: Any, tmp_path: Path, tiny_model: ModelRef
):
    study = {**STUDY, "model": {"path": tiny_model.path}}
    for name in ("ray", "here"):
        new_repository(tmp_path / name, study)
    places = os.environ["TMPDIR"]
    sent = holdfast(tmp_path / "ray", places, "study", "tiny.yaml", *RAY, RAY_ADDRESS=cluster.address)
    assert sent.code == 0, sent.stderr
    assert "Traceback" not in sent.stderr
    assert len(_nodes(tmp_path / "ray")) == 2
    here = holdfast(tmp_path / "here", places, "study", "tiny.yaml")
    assert here.code == 0, here.stderr
    assert _numbers(sent) == _numbers(here)
    weights = [sorted((tmp_path / name / "mlruns/artifacts").rglob("*.safetensors")) for name in ("ray", "here")]
    assert weights[0]
    assert sorted(path.read_bytes() for path in weights[0]) == sorted(path.read_bytes() for path in weights[1])
    again = holdfast(tmp_path / "ray", places, "study", "tiny.yaml", *RAY, RAY_ADDRESS=cluster.address)
    assert again.code == 0, again.stderr
    assert "To do: 0" in again.stderr or "Everything is there" in again.stderr, again.stderr


def _working(root: Path) -> dict[int, str]:
    """Process ids of the stages that run below a repository, and the journal's directory each writes."""
    found = {}
    for log in Path("/proc").glob("[0-9]*/fd/1"):
        try:
            target = os.readlink(log)
        except OSError:
            continue
        if target.startswith(str(root)) and target.endswith("log.txt"):
            found[int(log.parts[2])] = target
    return found


def _nodes_of_running(root: Path) -> dict[str, str]:
    """By arm the node of a training that has taken a step."""
    stepping = {
        log.parent.name.split(".")[0] for log in root.glob("mlruns/work/*.partial/metrics.jsonl") if _steps(log)
    }
    running = store(root).search("attributes.status = 'RUNNING'")
    tags = [run.data.tags for run in running if run.data.tags.get("holdfast.stage_key") in stepping]
    return {tag["holdfast.arm"]: tag["holdfast.ray_node"] for tag in tags if tag["holdfast.kind"] == "train"}


def _steps(journal: Path) -> bool:
    return '"train/loss"' in journal.read_text()


class Begun:
    """A study in its own process whose two trainings run, one on each node."""

    def __init__(self, root: Path, cluster: Any) -> None:
        command = [sys.executable, "-m", "flows", "study", "tiny.yaml", *RAY]
        environment = {**os.environ, "PREFECT_HOME": str(root / ".prefect"), "RAY_ADDRESS": cluster.address}
        environment.pop("MLFLOW_TRACKING_URI", None)
        self._said = root.with_suffix(".stderr")
        with self._said.open("w") as said:
            # Tests that run in the background ignore Ctrl-C, which a process would inherit.
            heard = signal.signal(signal.SIGINT, signal.default_int_handler)
            self.process = subprocess.Popen(command, cwd=root, env=environment, stderr=said)
            signal.signal(signal.SIGINT, heard)
        until = time.monotonic() + 240
        while len(nodes := self._training(root)) < 2:
            assert self.process.poll() is None, self.stderr
            assert time.monotonic() < until, self.stderr
            time.sleep(0.2)
        self.nodes = nodes
        assert len(set(nodes.values())) == 2

    @staticmethod
    def _training(root: Path) -> dict[str, str]:
        return _nodes_of_running(root) if (root / "mlruns/mlflow.db").exists() else {}

    @property
    def stderr(self) -> str:
        return self._said.read_text()


STEPS = 500
LONG = {**STAGE, "trainer": {**TRAINER, "max_steps": STEPS}}


@pytest.fixture
def begun(cluster: Any, tmp_path: Path, tiny_model: ModelRef) -> Iterator[Begun]:
    root = tmp_path / "ray"
    arms = {"one": [LONG], "two": [{**LONG, "trainer": {**LONG["trainer"], "learning_rate": 1e-3}}]}
    few = {**STUDY["evaluation"], "keep": STEPS, "every": STEPS}
    new_repository(root, {**STUDY, "arms": arms, "evaluation": few, "model": {"path": tiny_model.path}})
    started = Begun(root, cluster)
    yield started
    if started.process.poll() is None:
        started.process.kill()


def test_a_node_that_dies_does_not_end_the_study(cluster: Any, begun: Begun, tmp_path: Path):
    root, lost = tmp_path / "ray", cluster.second.node_id
    assert lost in begun.nodes.values()
    cluster.remove_node(cluster.second, allow_graceful=False)
    assert begun.process.wait(timeout=240) == 0, begun.stderr
    trained = store(root).search("tags.`holdfast.kind` = 'train'")
    assert [run.info.status for run in trained] == ["FINISHED", "FINISHED"]
    assert lost not in {run.data.tags["holdfast.ray_node"] for run in trained}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_stages_of_both_nodes(begun: Begun, tmp_path: Path, number: signal.Signals):
    root = tmp_path / "ray"
    assert len(_working(root)) == 2
    begun.process.send_signal(number)
    assert begun.process.wait(timeout=60) not in (0, -number), begun.stderr
    assert "Traceback" not in begun.stderr
    until = time.monotonic() + 10
    while _working(root) and time.monotonic() < until:
        time.sleep(0.2)
    assert not _working(root)
    assert not store(root).search("attributes.status = 'RUNNING'")


def test_without_a_cluster_a_study_is_refused(tmp_path: Path, tiny_model: ModelRef):
    new_repository(tmp_path / "ray", {**STUDY, "model": {"path": tiny_model.path}})
    with tempfile.TemporaryDirectory(prefix="hf") as places:
        refused = holdfast(tmp_path / "ray", places, "study", "tiny.yaml", *RAY, RAY_ADDRESS="127.0.0.1:1")
    assert refused.code == 2
    assert "no Ray cluster answers at 127.0.0.1:1" in refused.stderr
