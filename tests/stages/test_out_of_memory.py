"""What does not fit into memory is one sentence, whatever stage it happens in."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_jobs import BATCH, LIMIT, evaluate_job, shards

from holdfast.config.jobs import Predict, Sample
from holdfast.config.methods import Rollouts
from holdfast.config.refs import DataRef, FileRef, ModelRef
from holdfast.errors import LONGEST, UserError
from holdfast.models.load import load_model
from holdfast.stages.out_of_memory import ASKED, SAMPLES, STEP, explained


def test_samples_that_do_not_fit_into_memory_say_what_to_lower() -> None:
    said = r"influence: a batch of samples .* lower influence\.batch_tokens"
    with pytest.raises(UserError, match=said), explained(SAMPLES):
        torch.empty(10**15)
    with pytest.raises(RuntimeError, match="other"), explained(SAMPLES):
        raise RuntimeError("other")


def test_a_sentence_is_said_whole() -> None:
    assert max(map(len, (ASKED, SAMPLES, STEP))) < LONGEST


@pytest.fixture
def full(tiny_model: ModelRef, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], bool]], None]:
    """Lets the forward pass of the body run out of a GPU's memory, where something is so."""
    # Not of the whole: TRL has a forward pass of its own around the body.
    kind = type(load_model(tiny_model).model)
    forward = kind.forward

    def fill(where: Callable[[], bool]) -> None:
        def failing(self: Any, *arguments: Any, **named: Any) -> Any:
            if where():
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.")
            return forward(self, *arguments, **named)

        failing.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
        monkeypatch.setattr(kind, "forward", failing)

    return fill


def said(run_stage: Callable[..., Path], job: Any, out: Path) -> str:
    with pytest.raises(SystemExit) as ended:
        run_stage(job, out)
    assert ended.value.code == 2
    return json.loads((out / "error.json").read_text())["message"]


@pytest.fixture
def jobs(tiny_data: DataRef, tiny_model: ModelRef) -> dict[str, Any]:
    target = shards(tiny_data, "jigsaw", "target").validation
    about: dict[str, Any] = {"base": tiny_model, "limit": LIMIT, "batch_size": BATCH}
    questions = FileRef(path=tiny_data.path / "target-train.parquet", digest="")
    source = Rollouts(kind="rollouts", arm="a", prompts=2, per_prompt=1)
    several: dict[str, Any] = {"models": (tiny_model,), "target": (target,), "prior": (target,), "temperature": 1.0}
    return {
        "evaluate": evaluate_job(tiny_data, tiny_model),
        "sample": Sample(source=source, model=tiny_model, data=tiny_data, questions=questions, **about),
        "predictors": Predict(prompts=2, samples=2, **several, **about),
    }


@pytest.mark.parametrize("stage", ["evaluate", "sample", "predictors"])
def test_whoever_asks_a_model_too_much_at_once_is_told_of_the_batch(
    stage: str, full: Any, jobs: dict[str, Any], run_stage: Callable[..., Path], tmp_path: Path
) -> None:
    full(lambda: True)
    assert said(run_stage, jobs[stage], tmp_path) == ASKED


def test_a_training_that_runs_out_of_memory_says_whether_in_a_step_or_while_it_is_asked(
    full: Any, train_job: Callable[..., Any], run_stage: Callable[..., Path], tmp_path: Path
) -> None:
    job = train_job({"method": "sft", "source": "answers", "trainer": {"max_steps": 1}})
    full(lambda: not torch.is_grad_enabled())
    assert said(run_stage, job, tmp_path / "asked") == ASKED
    full(torch.is_grad_enabled)
    assert said(run_stage, job, tmp_path / "step") == STEP
