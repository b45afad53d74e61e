"""A teacher's distribution is what each sampled token learns, and a teacher that is the model teaches nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import kl_div

from holdfast.config.jobs import Train
from holdfast.config.refs import ModelRef
from holdfast.data.shards import Question
from holdfast.journal import Journal
from holdfast.models.encode import encode
from holdfast.models.load import load_model, load_processor
from holdfast.training.callback import StageCallback
from holdfast.training.distillation import ASKED, MovingAverage
from holdfast.training.stage import build

TRAINER = {"max_steps": 2, "per_device_train_batch_size": 4, "max_completion_length": 16, "learning_rate": 1e-3}


@pytest.fixture(scope="session")
def job(train_job: Callable, schooled: ModelRef, tiny_model: ModelRef) -> Callable[..., Train]:
    """A distillation of the schooled model, by default into the tiny model that it comes from."""

    def make(teacher: Any = "base", base: ModelRef = tiny_model, **trainer: Any) -> Train:
        stage = {"method": "distill", "teacher": teacher, "trainer": TRAINER | trainer}
        return train_job(stage, schooled).model_copy(update={"base": base})

    return make


def built(made: Train, out: Path) -> Any:
    processor = load_processor(made.start)
    out.mkdir(exist_ok=True)
    trainer = build(made, processor, out, StageCallback(out, Journal(out), lambda *_: {}, processor))
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    return trainer


def batch(trainer: Any) -> Any:
    return trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))


def said(trainer: Any, model: Any, question: Question, completion: torch.Tensor) -> torch.Tensor:
    """Log-probabilities (tokens, vocabulary) of one row read alone, without padding."""
    [prompt] = encode(trainer.processor, [question])
    images = {name: value for name, value in prompt.items() if name in ("pixel_values", "image_grid_thw")}
    ids = torch.cat([prompt["input_ids"], completion])[None]
    kinds = torch.cat([prompt["mm_token_type_ids"], torch.zeros_like(completion)])[None]
    logits = model(input_ids=ids, mm_token_type_ids=kinds, **images).logits[0]
    return logits[-len(completion) - 1 : -1].log_softmax(-1)


@pytest.mark.parametrize("teacher", ["base", "demonstration"])
def test_the_loss_is_the_mean_reverse_kl_of_the_sampled_tokens(teacher: str, job: Callable, tmp_path: Path) -> None:
    made = job(teacher)
    trainer = built(made, tmp_path)
    inputs = batch(trainer)
    with torch.no_grad():
        # The teacher stays as it was when the model has moved.
        trainer.model.lm_head.weight.mul_(1.1)
    other = load_model(made.base if teacher == "base" else made.start)
    distances = []
    for name, ids, mask in zip(inputs[ASKED], inputs["completion_ids"], inputs["completion_mask"], strict=True):
        question, own = trainer.asked[name], ids[mask.bool()]
        shown = question
        if teacher == "demonstration":
            shown = trainer.shown[name]
            assert question.reference in shown.prompt
            assert question.reference not in question.prompt
        now, then = (said(trainer, *one, own) for one in ((trainer.model, question), (other, shown)))
        distances.append(kl_div(then, now, log_target=True, reduction="none").sum(-1))
    expected = torch.cat(distances).mean()
    assert expected > 1e-3
    torch.testing.assert_close(trainer._compute_loss(trainer.model, inputs), expected, rtol=1e-4, atol=1e-6)


def test_a_teacher_that_is_the_model_teaches_nothing(job: Callable, schooled: ModelRef, tmp_path: Path) -> None:
    trainer = built(job(base=schooled), tmp_path)
    loss = trainer._compute_loss(trainer.model, batch(trainer))
    loss.backward()
    assert abs(loss.item()) < 1e-6
    assert max(p.grad.abs().max() for p in trainer.model.parameters() if p.grad is not None) < 1e-6


def test_a_step_is_the_same_in_one_pass_and_in_several(job: Callable, run_stage: Callable, tmp_path: Path) -> None:
    ways = [{"per_device_train_batch_size": 8}, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}]
    ends = []
    for number, way in enumerate(ways):
        out = run_stage(job("demonstration", num_generations=4, temperature=1.5, **way), tmp_path / str(number))
        assert len({len(row) for row in pq.read_table(out / "completions.parquet")["completion"].to_pylist()}) > 1
        ends.append(load_file(max((out / "checkpoints").iterdir()) / "model.safetensors"))
    whole, parts = ends
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-3, atol=1e-5)


def test_another_arms_end_is_learned_from(
    job: Callable, tiny_model: ModelRef, run_stage: Callable, tmp_path: Path
) -> None:
    made = job({"kind": "arm", "arm": "other"}, max_steps=20, learning_rate=1e-2)
    made = made.model_copy(update={"teacher": tiny_model})
    before = built(made, tmp_path / "before")
    inputs = batch(before)
    away = before._compute_loss(before.model, inputs).item()
    out = run_stage(made, tmp_path / "stage")
    end = max((out / "checkpoints").iterdir())
    before.model.load_state_dict(load_model(ModelRef(path=str(end), digest="")).state_dict())
    assert before._compute_loss(before.model, inputs).item() < away / 2
    weights, start = (load_file(Path(place) / "model.safetensors") for place in (end, made.start.path))
    assert all(torch.equal(weights[name], start[name]) for name in start if "visual" in name)


def test_a_moving_average_by_hand() -> None:
    teacher, model = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        teacher.weight.fill_(1.0)
        model.weight.fill_(3.0)
    average = MovingAverage(teacher, model, 0.25)
    teacher.requires_grad_(False)
    seen = []
    for _ in range(2):
        average.on_step_end(*[None] * 3, model=model)  # type: ignore[arg-type]
        seen.append(teacher.weight.item())
    assert seen == [1.5, 1.875]
