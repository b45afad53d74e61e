import math
import os
import time
from contextlib import suppress
from typing import Any

import pytest

from tasks.parent_runs import study_run
from tasks.recording import Recorder, flat_params
from tasks.resource_usage import EVERY, ResourceUsage
from tasks.tracking import Store, open_store


def test_the_leaves_of_a_config_are_its_parameters():
    config = {
        "evaluation": {"every": 0.25, "pass_at": [1, 4]},
        "arms": {"self": [{"method": "sft", "lora": None}]},
        "trainer": {},
        "name": "bundled",
    }
    assert flat_params(config) == {
        "evaluation.every": "0.25",
        "evaluation.pass_at": "[1, 4]",
        "arms.self.0.method": "sft",
        "arms.self.0.lora": "null",
        "trainer": "{}",
        "name": "bundled",
    }


def test_very_long_parameters_and_odd_names_are_accepted(root, study):
    store = open_store(root)
    with study_run(root, study) as run_id:
        pass
    other = store.begin("other", "long", {})
    store.params(
        other, flat_params({"text_config": "x" * 10_000, "odd$name": {"a": 1}} | {f"p{i}": i for i in range(150)})
    )
    params = store.client.get_run(other).data.params
    assert len(params["text_config"]) == 6000
    assert params["odd_name.a"] == "1"
    assert len(params) == 152
    assert store.client.get_run(run_id).data.params["arms.answers.0.source.kind"] == "answers"


def record(store: Store, run_id: str, lines: list[dict[str, Any]]) -> None:
    with Recorder(store, run_id, None) as recorder:
        recorder.log_lines(lines)


def test_metrics_wait_for_the_next_batch_and_an_error_loses_none(root, study, monkeypatch):
    store = open_store(root)
    lines = [{"step": s, "metrics": {"train/loss": 1.0}, "time": 100.0} for s in range(4)]

    def logged() -> list[int]:
        return sorted(step for _, step in store.logged(run_id))

    with study_run(root, study) as run_id, suppress(ZeroDivisionError), Recorder(store, run_id, None) as recorder:
        recorder.log_lines(lines[:1])
        assert logged() == []
        monkeypatch.setattr("tasks.recording.EVERY", 0.0)
        recorder.log_lines(lines[1:2])
        assert logged() == [0, 1]
        monkeypatch.undo()
        recorder.log_lines(lines[2:])
        raise ZeroDivisionError
    assert logged() == [0, 1, 2, 3]


def test_a_store_that_refuses_metrics_is_not_asked_again_as_the_block_ends(root, study, monkeypatch):
    store = open_store(root)
    asked: list[int] = []

    def refuse(*_: object) -> None:
        asked.append(1)
        raise ConnectionError

    monkeypatch.setattr(store, "log", refuse)
    monkeypatch.setattr("tasks.recording.EVERY", 0.0)
    with study_run(root, study) as run_id, pytest.raises(ConnectionError), Recorder(store, run_id, None) as recorder:
        recorder.log_lines([{"step": 1, "metrics": {"train/loss": 1.0}, "time": 1.0}])
    assert len(asked) == 1


def test_lines_that_come_again_are_logged_once_by_another_recorder_too(root, study):
    store = open_store(root)
    lines = [{"step": s, "metrics": {"train/loss": 1.0 / s}, "time": 100.0 + s} for s in (1, 2, 3)]
    with study_run(root, study) as run_id:
        record(store, run_id, lines[:2])
        with Recorder(store, run_id, None) as repeated:
            repeated.log_lines([{**line, "time": time.time()} for line in lines])
            repeated.log_lines(lines)
    assert [m.step for m in store.client.get_metric_history(run_id, "train/loss")] == [1, 2, 3]


def test_an_alarm_is_a_tag_that_says_why_and_a_metric_at_its_step(root, study):
    store = open_store(root)
    line = {"step": 7, "metrics": {"alarm/length": 1.0}, "alarm": "length", "sentence": "it grew", "time": 5.0}
    with study_run(root, study) as run_id:
        record(store, run_id, [line])
        record(store, run_id, [line])
    assert store.client.get_run(run_id).data.tags["holdfast.alarm.length"] == "step 7: it grew"
    assert [(m.step, m.value) for m in store.client.get_metric_history(run_id, "alarm/length")] == [(7, 1.0)]


def test_more_metrics_than_mlflow_takes_at_once_are_all_logged(root, study):
    store = open_store(root)
    lines = [{"step": s, "metrics": {f"train/m{i}": 1.0 for i in range(15)}, "time": 1.0} for s in range(100)]
    with study_run(root, study) as run_id:
        record(store, run_id, lines)
    assert len(store.logged(run_id)) == 1500


@pytest.fixture
def usage(monkeypatch: pytest.MonkeyPatch) -> ResourceUsage:
    """Of this process, and due for a sample."""
    usage = ResourceUsage([os.getpid()], "")
    usage.last -= EVERY
    return usage


def test_what_a_stage_uses_is_sampled_every_few_seconds(usage):
    (line,) = usage.new_lines()
    assert line["system"]["system/memory_usage_megabytes"] > 20
    assert line["system"]["system/cpu_utilization_percentage"] > 0
    assert usage.new_lines() == []


def test_samples_of_use_continue_after_an_interruption(root, study):
    store = open_store(root)
    line = {"system": {"system/memory_usage_megabytes": 5.0}, "time": 1.0}
    with study_run(root, study) as run_id:
        record(store, run_id, [line, line])
        record(store, run_id, [line])
    history = store.client.get_metric_history(run_id, "system/memory_usage_megabytes")
    assert [m.step for m in history] == [0, 1, 2]


def test_numbers_that_are_not_finite_reach_the_store_as_such(root, study):
    store = open_store(root)
    numbers = {"train/loss": math.nan, "kl/target": math.inf}
    with study_run(root, study) as run_id:
        record(store, run_id, [{"step": 1, "metrics": {"train/loss": 0.5}, "time": 1.0}])
        record(store, run_id, [{"step": 2, "metrics": numbers, "time": 2.0}])
    found = store.client.get_run(run_id).data.metrics
    assert math.isnan(found["train/loss"])
    # SQL has no infinity; MLflow keeps the largest float for it.
    assert found["kl/target"] > 1e308
