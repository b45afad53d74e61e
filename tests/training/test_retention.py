"""What stays near the model as it was is rewarded, by RaPO's formula."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from trainings import logged, trained

from holdfast.config.jobs import Train
from holdfast.config.refs import ModelRef
from holdfast.data.training_set import train_rows
from holdfast.journal import Journal
from holdfast.models.encode import completion_ids, encode
from holdfast.models.load import load_model, load_processor
from holdfast.training.callback import StageCallback
from holdfast.training.rewards import retained
from holdfast.training.stage import build

TRAINER = {
    "max_steps": 4,
    "per_device_train_batch_size": 8,
    "num_generations": 4,
    "learning_rate": 1e-3,
    "max_completion_length": 16,
}


@pytest.fixture(scope="session")
def job(train_job: Callable, schooled: ModelRef) -> Callable[..., Train]:
    def make(rewards: dict[str, Any], keep: float = 1000, **given: Any) -> Train:
        return train_job({"method": "grpo", "rewards": rewards, "trainer": TRAINER, **given}, schooled, keep=keep)

    return make


def test_retention_by_hand() -> None:
    found = retained([0.0, -0.3, 0.05, 1.0], 20)
    assert found == pytest.approx([1, 1, math.exp(-1), math.exp(-20)])


def test_the_ratio_is_of_the_model_to_what_it_was(
    job: Callable, schooled: ModelRef, tiny_model: ModelRef, tmp_path: Path
) -> None:
    made, processor = job({"score": 1, "retention": 0.5}), load_processor(schooled)
    callback: Any = StageCallback(tmp_path, Journal(tmp_path), lambda *_: {}, processor)
    trainer: Any = build(made, processor, tmp_path, callback)
    rows = train_rows(made)[:2]
    said = [completion_ids(processor.tokenizer, text) for text in (rows[0].question.reference, "a")]
    names = [row.question.id for row in rows]
    assert callback.rewards.log_ratios(names, said) == pytest.approx([0, 0], abs=1e-6)
    # Now it is another model: the one that the start was schooled from.
    other = load_model(tiny_model)
    trainer.model.load_state_dict(other.state_dict())
    found = callback.rewards.log_ratios(names, said)
    for row, ids, ratio in zip(rows, said, found, strict=True):
        now, then = (alone(model, processor, row.question, ids) for model in (other, load_model(schooled)))
        assert abs(ratio) > 0.1
        assert ratio == pytest.approx((now - then) / len(ids), rel=1e-3)


def alone(model: Any, processor: Any, question: Any, ids: list[int]) -> float:
    """Log-likelihood of one completion, read without padding."""
    [prompt] = encode(processor, [question])
    given = {name: prompt[name] for name in ("pixel_values", "image_grid_thw")}
    tokens = torch.cat([prompt["input_ids"], torch.tensor(ids)])[None]
    kinds = torch.cat([prompt["mm_token_type_ids"], torch.zeros(len(ids), dtype=torch.long)])[None]
    logits = model(input_ids=tokens, mm_token_type_ids=kinds, **given).logits[0, -len(ids) - 1 : -1]
    logits = logits.detach()
    return float(logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None]).sum())


@pytest.mark.slow
def test_a_term_of_weight_zero_is_plain_training(job: Callable, tmp_path: Path) -> None:
    plain = trained(job({"score": 1}), tmp_path / "plain")
    idle = trained(job({"score": 1, "retention": 0}), tmp_path / "idle")
    assert all(torch.equal(idle[name], value) for name, value in plain.items())
    paid = trained(job({"score": 1, "retention": 5}), tmp_path / "paid")
    assert not all(torch.equal(paid[name], value) for name, value in plain.items())
    # Nothing is rewarded where the training begins, since all is as it was; then it moves.
    names = "train/retention/log_ratio", "train/rewards/retention/mean"
    ratios, rewards = (logged(tmp_path / "paid", name) for name in names)
    assert (ratios[0], rewards[0]) == (pytest.approx(0, abs=1e-6), pytest.approx(1, abs=1e-4))
    assert rewards[-1] < 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "given",
    [{}, {"lora": {"r": 4, "target_modules": "all-linear"}}],
    ids=["whole", "lora"],
)
def test_an_interrupted_training_ends_with_the_same_bits(given: dict, job: Callable, tmp_path: Path) -> None:
    made = job({"score": 1, "retention": 0.5}, keep=1, **given)
    whole = trained(made, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        trained(made, tmp_path / "broken", broken_at=3)
    resumed = trained(made, tmp_path / "broken")
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())
    for name in ("rewards/retention/mean", "retention/log_ratio"):
        assert logged(tmp_path / "broken", f"train/{name}") == logged(tmp_path / "whole", f"train/{name}")
