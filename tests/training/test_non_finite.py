"""A training that loses its numbers says so, keeps no number of before in their place, and stops in one sentence."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from trl import SFTTrainer

from holdfast.config.refs import ModelRef
from holdfast.config.results import Result
from holdfast.journal import Journal, parsed, read_lines
from holdfast.training.alarms import Alarms
from holdfast.training.non_finite import STAYS, NonFiniteWatch

STEPS = 6
BATCHES = {"sft": {"per_device_train_batch_size": 4}, "grpo": {"per_device_train_batch_size": 8, "num_generations": 4}}


def stage(method: str, **trainer: Any) -> dict[str, Any]:
    given = {"sft": {"source": "answers"}, "grpo": {}}[method]
    more = {"max_completion_length": 16} if method == "grpo" else {}
    return {"method": method, **given, "trainer": {"max_steps": STEPS, **BATCHES[method], **more, **trainer}}


def strictly(path: Path) -> list[Any]:
    """Lines of JSON that hold nothing but JSON."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("method", ["sft", "grpo"])
def test_a_training_whose_weights_are_lost_stops_in_one_sentence_and_keeps_no_number_of_before(
    method: str, train_job: Callable, schooled: ModelRef, run_stage: Callable, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as ended:
        run_stage(train_job(stage(method, learning_rate=1e36, logging_steps=1), schooled, keep=1), tmp_path)
    assert ended.value.code == 2
    message = json.loads((tmp_path / "error.json").read_text())["message"]
    assert "training was stopped" in message
    assert "lower trainer.learning_rate (it is 1e+36)" in message
    assert len(message) < 300
    assert strictly(tmp_path / "metrics.jsonl")
    assert not (tmp_path / "result.json").exists()


def test_weights_that_are_not_finite_are_neither_measured_nor_kept_and_told_by_an_alarm(
    train_job: Callable, run_stage: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once(monkeypatch, 3, spoil=True)
    with pytest.raises(SystemExit):
        run_stage(train_job(stage("sft", logging_steps=1), keep=1), tmp_path)
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["step-000001", "step-000002"]
    lines = [line for line in read_lines(tmp_path / "metrics.jsonl") if line.get("step") == 3]
    assert math.isnan(lines[0]["metrics"]["train/loss"])
    assert (lines[1]["alarm"], lines[1]["sentence"]) == (
        "non-finite",
        "its weights are not finite, so training was stopped",
    )


def test_a_loss_that_is_not_finite_once_is_logged_as_such_told_and_forgiven(
    train_job: Callable, run_stage: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once(monkeypatch, 3)
    out = run_stage(train_job(stage("sft", logging_steps=1)), tmp_path)
    lines = [line for line in read_lines(out / "metrics.jsonl") if "train/loss" in line.get("metrics", {})]
    assert [line["step"] for line in lines if not math.isfinite(line["metrics"]["train/loss"])] == [3]
    assert [line["sentence"] for line in read_lines(out / "metrics.jsonl") if "alarm" in line] == ["the loss is nan"]
    result = Result.model_validate_json((out / "result.json").read_text())
    assert result.metrics["train/non_finite_steps"] == result.notes["non_finite_steps"] == 1


def test_a_last_loss_that_is_not_finite_is_the_result_not_the_one_before_it(
    train_job: Callable, run_stage: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once(monkeypatch, STEPS)
    out = run_stage(train_job(stage("sft", logging_steps=1)), tmp_path)
    assert json.loads((out / "result.json").read_text())["metrics"]["train/loss"] == "NaN"
    assert math.isnan(Result.model_validate_json((out / "result.json").read_text()).metrics["train/loss"])


def once(monkeypatch: pytest.MonkeyPatch, step: int, spoil: bool = False) -> None:
    """At one step the loss is told as NaN; with `spoil`, a weight becomes so before the optimizer's step."""
    original, seen = SFTTrainer.training_step, [0]

    def training_step(self: Any, *given: Any, **named: Any) -> torch.Tensor:
        loss = original(self, *given, **named)
        seen[0] += 1
        if seen[0] != step:
            return loss
        if spoil:
            next(value for value in self.model.parameters() if value.requires_grad).data[0] = math.nan
        return loss * math.nan

    monkeypatch.setattr(SFTTrainer, "training_step", training_step)


def test_losses_that_stay_without_a_finite_value_end_a_training_and_single_ones_do_not() -> None:
    watch = NonFiniteWatch()
    stream = [math.nan, 1.0, math.inf, math.nan, 1.0, math.inf, math.nan, math.nan]
    assert STAYS == 3
    assert [watch.take({"train/loss": loss}) for loss in stream] == [True] * 7 + [False]
    assert watch.take({"kl/target": 0.1}) is False


def test_a_loss_without_a_finite_value_is_an_alarm_while_terms_warm_up_too_and_once_an_episode() -> None:
    from holdfast.config.methods import GRPO

    terms = GRPO(method="grpo", rewards={"score": {"warm_up": 50}}).rewards
    watch = Alarms(terms)
    losses = [1.0, math.nan, math.inf, *[1.0] * 6, math.inf]
    found = [alarm for step, loss in enumerate(losses) for alarm in watch.take(step, {"train/loss": loss})]
    assert [(alarm.name, alarm.step, alarm.sentence) for alarm in found] == [
        ("non-finite", 1, "the loss is nan"),
        ("non-finite", 9, "the loss is inf"),
    ]


def test_numbers_that_are_not_finite_survive_the_journal_as_strict_json(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    numbers = {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 0.5}
    journal.log(1, numbers)
    journal.progress(1, 2, loss=math.nan)
    journal.save(tmp_path / "saved")
    journal.restore(tmp_path / "saved")
    [line] = strictly(tmp_path / "metrics.jsonl")
    assert line["metrics"] == {"a": "NaN", "b": "Infinity", "c": "-Infinity", "d": 0.5}
    [read] = read_lines(tmp_path / "metrics.jsonl")
    assert repr(read["metrics"]) == repr(numbers) == repr(parsed(json.dumps(line))["metrics"])
