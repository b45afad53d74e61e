"""Real optimizer steps: predictions must miss by the right power of the step, and wrong ones must be noticed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from unlike import batch_of, questions_with_images

from holdfast.config.refs import FileRef, file_digest
from holdfast.influence import checkpoints
from holdfast.influence.engine.engine import Engine
from holdfast.influence.engine.gradients import mean_gradient
from holdfast.influence.optimizer_step import optimizer_step, order, residuals

OPTIMIZERS = {
    "SGD": lambda model: torch.optim.SGD(model.parameters(), lr=1e-3),
    "AdamW": lambda model: torch.optim.AdamW(model.parameters(), lr=5e-5),
}


@pytest.fixture
def lessons(processor: Any) -> tuple[Any, Any]:
    """A batch to learn from, and questions that must survive."""
    samples = questions_with_images(processor)
    return batch_of(samples[:2]), [batch_of(samples[2:])]


def stepped(model: Any, batch: Any, optimizer: torch.optim.Optimizer) -> Any:
    """A real step's Δθ; the model is put back to where it began."""
    start = {name: value.clone() for name, value in checkpoints.weights(model).items()}
    step = optimizer_step(model, batch, optimizer)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(start[name])
    return step


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_predictions_of_a_real_step_converge_at_their_order(name: str, vision_model: Any, lessons: Any) -> None:
    batch, questions = lessons
    step = stepped(vision_model, batch, OPTIMIZERS[name](vision_model))
    found = residuals(vision_model, questions, step)
    assert abs(found[0].first_order) < abs(found[0].measured)
    assert order(found, lambda residual: residual.first_order) > 1.8
    assert order(found, lambda residual: residual.trapezoid) > 2.8


def test_a_wrong_gradient_converges_at_order_one(vision_model: Any, lessons: Any, monkeypatch: Any) -> None:
    batch, questions = lessons
    step = stepped(vision_model, batch, OPTIMIZERS["SGD"](vision_model))
    right = mean_gradient

    def without_the_embedding(*given: Any, **named: Any) -> Any:
        return {n: 0 * v if "embed_tokens" in n else v for n, v in right(*given, **named).items()}

    monkeypatch.setattr("holdfast.influence.optimizer_step.mean_gradient", without_the_embedding)
    found = residuals(vision_model, questions, step)
    assert order(found, lambda residual: residual.first_order) < 1.5


def test_the_samples_of_an_sgd_step_add_up_to_its_prediction(vision_model: Any, lessons: Any) -> None:
    batch, questions = lessons
    prior = mean_gradient(vision_model, questions, per_token=True)
    measured = Engine(vision_model, [prior]).measure(batch)
    step = stepped(vision_model, batch, OPTIMIZERS["SGD"](vision_model))
    expected = 1e-3 * measured.dot.sum() / batch.mask.sum()
    assert checkpoints.inner(prior, step) == pytest.approx(float(expected), rel=1e-8)


def test_a_parameter_that_the_optimizer_never_moved_has_no_part_in_a_preconditioned_target() -> None:
    gradient = {"moved": torch.tensor([4.0]), "never": torch.tensor([1.0])}
    found = checkpoints.preconditioned(gradient, {"moved": torch.tensor([2.0])})
    assert (found["moved"].item(), found["never"].item()) == (2.0, 0.0)


def test_second_moments_are_rooted_before_epsilon_is_added(tmp_path: Any) -> None:
    save_file({"w": torch.tensor([4.0, 0.0])}, tmp_path / "v.safetensors")
    ref = FileRef(path=tmp_path / "v.safetensors", digest=file_digest(tmp_path / "v.safetensors"))
    assert checkpoints.preconditioner(ref, 0.5)["w"].tolist() == [2.5, 0.5]


def test_preconditioned_samples_add_up_to_an_adam_step_without_momentum(vision_model: Any, lessons: Any) -> None:
    batch, questions = lessons
    optimizer = torch.optim.Adam(vision_model.parameters(), lr=1e-5, betas=(0.0, 0.9))
    prior = mean_gradient(vision_model, questions, per_token=True)
    step = stepped(vision_model, batch, optimizer)
    names = {id(parameter): name for name, parameter in vision_model.named_parameters()}
    scale = {
        names[id(parameter)]: (state["exp_avg_sq"] / (1 - 0.9)).sqrt() + checkpoints.EPSILON
        for parameter, state in optimizer.state.items()
    }
    measured = Engine(vision_model, [checkpoints.preconditioned(prior, scale)]).measure(batch)
    expected = 1e-5 * measured.dot.sum() / batch.mask.sum()
    assert checkpoints.inner(prior, step) == pytest.approx(float(expected), rel=1e-6)
