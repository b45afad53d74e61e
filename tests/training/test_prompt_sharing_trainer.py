"""The passes of an optimizer step are cut from its rows by prompt, and the step is the one that TRL would take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from trl.trainer.utils import shuffle_sequence_dict

from holdfast import group
from holdfast.config.jobs import Train
from holdfast.config.refs import ModelRef
from holdfast.journal import Journal
from holdfast.models.load import load_processor
from holdfast.training.callback import StageCallback
from holdfast.training.stage import build

TRAINER = {
    "max_steps": 2,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 4,
    "num_generations": 4,
    "max_completion_length": 16,
    "learning_rate": 1e-3,
}
AHEAD = {"steps_per_generation": 8}
"""Rollouts of two steps at once."""


@pytest.fixture
def reinforced(train_job: Callable[..., Train], schooled: ModelRef, tmp_path: Path) -> Callable[..., Any]:
    """A trainer with some of the arguments changed."""

    def make(**changed: Any) -> Any:
        job = train_job({"method": "grpo", "trainer": TRAINER | changed}, schooled)
        processor = load_processor(job.start)
        trainer = build(job, processor, tmp_path, StageCallback(tmp_path, Journal(tmp_path), lambda *_: {}, processor))
        trainer.model.train()
        trainer.current_gradient_accumulation_steps = trainer.args.gradient_accumulation_steps
        return trainer

    return make


def numbered(count: int) -> dict[str, Any]:
    """A generation's rows, of each kind that TRL has."""
    rows = torch.arange(count)
    return {"none": None, "prompt_ids": rows, "num_images": rows.tolist(), "num_items_in_batch": torch.tensor(7)}


@pytest.mark.parametrize(
    ("changed", "passes", "prompts"),
    [
        ({}, 4, [1, 1, 1, 1]),
        # Cut where it has to be: the third prompt's rows lie in two passes.
        ({"num_generations": 8, "per_device_train_batch_size": 12, "gradient_accumulation_steps": 2}, 2, [2, 2]),
        ({"num_iterations": 2}, 4, [1, 1, 1, 1]),
        # A step takes whole generations, and a generation may lie in two steps.
        ({"gradient_accumulation_steps": 8, "steps_per_generation": 4}, 4, [1, 1, 1, 1]),
        ({"gradient_accumulation_steps": 6, "steps_per_generation": 4}, 2, None),
        (AHEAD, 4, None),
    ],
)
def test_a_pass_has_few_prompts_and_a_step_the_rows_that_trl_would_give_it(
    changed: dict[str, Any], passes: int, prompts: list[int] | None, reinforced: Callable
) -> None:
    trainer = reinforced(**changed)
    args = trainer.args
    size, rows = args.per_device_train_batch_size, numbered(args.generation_batch_size)
    torch.manual_seed(1)
    expected, after = shuffle_sequence_dict(rows)["prompt_ids"], torch.rand(1)
    torch.manual_seed(1)
    found = trainer._shuffled(rows)
    assert torch.equal(torch.rand(1), after)
    assert (found["none"], found["num_items_in_batch"]) == (None, 7)
    assert found["prompt_ids"].tolist() == found["num_images"]
    by_step = found["prompt_ids"].view(-1, passes * size)
    assert torch.equal(by_step.sort().values, expected.view(-1, passes * size).sort().values)
    ours, theirs = (
        [len(set(one)) for one in (order // args.num_generations).view(-1, size).tolist()]
        for order in (found["prompt_ids"], expected)
    )
    assert sum(ours) < sum(theirs)
    assert prompts is None or ours == prompts


def test_where_nothing_is_saved_rows_lie_as_trl_shuffles_them(reinforced: Callable) -> None:
    trainer = reinforced(gradient_accumulation_steps=1)
    rows = numbered(trainer.args.generation_batch_size)
    torch.manual_seed(1)
    expected = shuffle_sequence_dict(rows)
    torch.manual_seed(1)
    assert trainer._shuffled(rows)["num_images"] == expected["num_images"]


def test_processes_take_parts_of_one_order(reinforced: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = reinforced(gradient_accumulation_steps=1)
    torch.manual_seed(1)
    drawn, after = torch.randperm(16).tolist(), torch.rand(1)
    monkeypatch.setattr(group, "size", lambda: 4)
    for number in range(4):
        monkeypatch.setattr(group, "number", lambda number=number: number)
        torch.manual_seed(1)
        own = trainer._shuffled(numbered(4))["num_images"]
        assert torch.equal(torch.rand(1), after)
        assert own == [row % 4 for row in drawn if row // 4 == number]


@pytest.mark.parametrize("loss", ["dapo", "grpo", "dr_grpo", "bnpo"])
@pytest.mark.parametrize("ahead", [{}, AHEAD], ids=["a generation a step", "two steps a generation"])
def test_the_gradient_of_a_step_is_that_of_trls_own_passes(
    loss: str, ahead: dict[str, int], reinforced: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = reinforced(loss_type=loss, temperature=1.5, **ahead)
    asked = next(iter(trainer.get_train_dataloader()))

    def gradient() -> torch.Tensor:
        """Of the first optimizer step."""
        torch.manual_seed(1)
        trainer._buffered_inputs = None
        trainer._prepare_inputs(asked)
        batches = trainer._buffered_inputs[: trainer.args.gradient_accumulation_steps]
        # Of rollouts that are alike in length or reward, any passes would do.
        assert len({int(length) for batch in batches for length in batch["completion_mask"].sum(1)}) > 1
        assert any(batch["advantages"].any() for batch in batches)
        trainer.model.zero_grad()
        for batch in batches:
            trainer._compute_loss(trainer.model, batch).backward()
        learning = [value.grad for value in trainer.model.parameters() if value.grad is not None]
        return torch.cat([value.flatten() for value in learning])

    ours = gradient()
    monkeypatch.setattr(trainer, "_shuffled", shuffle_sequence_dict)
    expected = gradient()
    apart = float((ours - expected).norm() / expected.norm())
    if loss == "bnpo":
        # A mean over the tokens of a pass, whose rows are others.
        assert 1e-3 < apart < 1
    else:
        assert apart < 1e-4
