"""Certainty by its definition, and random-logit probes against a kernel that is worked out whole."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from unlike import batch_of, texts

from holdfast.influence.benchmark_gradients import QUESTIONS, kernel_dots, question_gradients, random_logits
from holdfast.influence.engine.engine import Engine
from holdfast.influence.engine.gradients import batch_gradient, completion_logits, selection
from holdfast.influence.engine.likelihood import Likelihood, RandomLogits, certainty
from holdfast.models.encode import TeacherForced

PROBES = 120


def test_certainty_is_what_the_matrices_of_the_paper_say() -> None:
    logits = torch.log(torch.tensor([[[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [1 / 3, 1 / 3, 1 / 3]]]))
    given = TeacherForced({}, torch.tensor([[0, 2, 0]]), torch.tensor([[True, True, False]]), (0,))
    found = certainty(logits, given)
    probabilities = [np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.1, 0.8])]
    wrong = [p - np.eye(3)[y] for p, y in zip(probabilities, (0, 2), strict=True)]
    spread = [np.linalg.norm(np.eye(3) - np.outer(np.ones(3), p)) ** 2 for p in probabilities]
    assert found.residual[0] == pytest.approx(np.mean([v @ v for v in wrong]), rel=1e-5)
    assert found.error[0] == pytest.approx(np.mean([np.linalg.norm(v) for v in wrong]), rel=1e-5)
    assert found.spread[0] == pytest.approx(np.mean(spread), rel=1e-5)


def test_a_confident_token_keeps_its_residual_in_single_precision() -> None:
    given = TeacherForced({}, torch.tensor([[0]]), torch.tensor([[True]]), (0,))
    found = certainty(torch.tensor([[[20.0, 0.0, 0.0]]]), given)
    other = np.exp(-20) / (1 + 2 * np.exp(-20))
    assert found.residual[0] == pytest.approx(2 * other**2 + (2 * other) ** 2, rel=1e-5)


def test_certainty_is_noted_in_the_order_of_the_samples(text_model: Callable[..., Any]) -> None:
    model = text_model("Llama")
    samples = texts(40, [(3, 5), (9, 1), (1, 4)])
    likelihood = Likelihood()
    engine = Engine(model, [])
    for sample in samples:
        engine.measure(batch_of([sample]), likelihood)
    together = Likelihood()
    engine.measure(batch_of(samples), together)
    for apart, joint in zip(likelihood.certainty, together.certainty, strict=True):
        assert apart == pytest.approx(joint)


def test_probes_estimate_the_norm_of_the_kernel_between_two_samples(text_model: Callable[..., Any]) -> None:
    model = text_model("Llama")
    first, second = (batch_of([sample]) for sample in texts(40, [(3, 2), (4, 2)]))
    exact = float((jacobian(model, first) @ jacobian(model, second).T).square().sum())
    left, right = RandomLogits(0), RandomLogits(1)
    squares = []
    for _ in range(PROBES):
        probe = batch_gradient(model, first, left)
        squares.append(float(Engine(model, [probe]).measure(second, right).dot[0, 0]) ** 2)
    assert np.mean(squares) == pytest.approx(exact, rel=4 * np.std(squares) / np.mean(squares) / PROBES**0.5)


def test_probes_by_halves_of_the_questions_estimate_their_mean_kernel(text_model: Callable[..., Any]) -> None:
    model = text_model("Llama")
    sample, *questions = texts(40, [(3, 2), (4, 2), (2, 3), (1, 1), (2, 2)])
    own = jacobian(model, batch_of([sample]))
    kernels = [float((own @ jacobian(model, batch_of([question])).T).square().sum()) for question in questions]
    encoder: Any = SimpleNamespace(batches=lambda samples, _: [batch_of(samples)])
    found = question_gradients(model, questions, encoder, random_logits(PROBES, 0, QUESTIONS))
    squares = kernel_dots(model, [batch_of([sample])], {"color": found.probes}, seed=0)["color"] ** 2
    assert squares.shape == (2 * PROBES, 1)
    means = squares.reshape(PROBES, 2).mean(1)
    assert means.mean() == pytest.approx(np.mean(kernels), rel=4 * means.std() / means.mean() / PROBES**0.5)


def jacobian(model: Any, given: TeacherForced) -> torch.Tensor:
    """∂ logits / ∂ θ (logits, parameters)."""
    logits = completion_logits(model, given)[0, : int(given.mask.sum())].flatten()
    parameters = list(selection(model).values())
    rows = [torch.autograd.grad(value, parameters, retain_graph=True, materialize_grads=True) for value in logits]
    return torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])
