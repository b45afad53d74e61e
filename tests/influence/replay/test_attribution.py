"""Sums over samples, steps and accounts against what real optimizers did to the weights, in float64."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from replays import NODES, STEPS, Trained, adamw, gradient_of, taught, train
from unlike import random_targets

from holdfast.influence.engine.gradients import Gradient, selection
from holdfast.influence.replay.attribution import (
    Attribution,
    Interval,
    Learned,
    SampleEffects,
    backwards,
    unexplained,
)
from holdfast.influence.replay.tokens import kinds, token_effects

TARGETS = 2


@pytest.fixture
def model(text_model: Callable[..., Any]) -> Any:
    return text_model("Llama")


def slopes(model: Any) -> dict[int, list[Gradient]]:
    """A V of its own for the interval that ends at each node."""
    return {end: random_targets(model, TARGETS, seed=end) for end in NODES[1:]}


def by_parameter(given: list[Gradient]) -> Gradient:
    return {name: torch.stack([one[name].flatten() for one in given]) for name in given[0]}


def attributed(trained: Trained) -> tuple[list[Interval], list[SampleEffects]]:
    given = slopes(trained.model)
    found = Attribution(trained.model, trained.recording, TARGETS)
    intervals = [found.interval(start, end, by_parameter(given[end])) for start, end in backwards(NODES)]
    return intervals, found.samples


def moved(trained: Trained, start: int, end: int) -> np.ndarray:
    """⟨V, Δθ⟩ of the real run (targets,)."""
    before, after = (trained.recording.store.read(step, "weights") for step in (start, end))
    return np.array(
        [sum(float((slope[n] * (after[n] - before[n])).sum()) for n in before) for slope in slopes(trained.model)[end]]
    )


def test_intervals_are_walked_backwards() -> None:
    assert list(backwards((0, 2, 6))) == [(2, 6), (0, 2)]


@pytest.mark.parametrize("optimizer", [adamw, partial(torch.optim.SGD, lr=1e-2, weight_decay=0.1)])
def test_accounts_of_every_interval_sum_to_what_its_real_steps_did(
    model: Any, tmp_path: Path, optimizer: Callable[..., Any]
) -> None:
    trained = train(model, taught(penalty=True), tmp_path, optimizer)
    intervals, samples = attributed(trained)
    assert any(effects.clip < 1 for effects in samples)
    for found in intervals:
        real = moved(trained, found.start, found.end)
        accounts = found.gradients + found.clipping + found.penalty + found.decay + found.carried
        assert np.abs(accounts - real).max() < 1e-9 * np.abs(real).max()
        own = sum(one.effects.sum(0) for one in samples if found.start < one.step <= found.end)
        assert found.gradients + found.clipping == pytest.approx(own, rel=1e-12)
        assert (np.abs(found.decay) > 1e-6).all()
        assert (np.abs(found.penalty) > 1e-6).all()


def test_what_momentum_carries_over_a_border_is_given_by_one_side_and_taken_by_the_other(
    model: Any, tmp_path: Path
) -> None:
    trained = train(model, taught(penalty=True), tmp_path)
    last, first = (found.carried for found in attributed(trained)[0])
    assert np.abs(last).min() > 1e-6
    assert first == pytest.approx(-last, rel=1e-9)


def test_samples_and_penalties_and_decay_sum_to_the_whole_training(model: Any, tmp_path: Path) -> None:
    trained = train(model, taught(penalty=True), tmp_path)
    intervals, samples = attributed(trained)
    whole = sum(one.effects.sum(0) for one in samples) + sum(found.penalty + found.decay for found in intervals)
    real = sum(moved(trained, found.start, found.end) for found in intervals)
    assert np.abs(whole - real).max() < 1e-9 * np.abs(real).max()


def test_momentum_of_plain_descent_is_followed_too(model: Any, tmp_path: Path) -> None:
    trained = train(model, taught(), tmp_path, partial(torch.optim.SGD, lr=1e-2, momentum=0.8))
    for found in attributed(trained)[0]:
        assert np.abs(found.rounding).max() < 1e-9 * np.abs(found.predicted).max()


def test_three_unrolled_steps_have_the_same_jacobian(model: Any, tmp_path: Path) -> None:
    """A sample's weight is moved, and its steps taken again with the second moments and factors that were taken."""
    steps = taught(3)
    trained = train(model, steps, tmp_path)
    found = Attribution(model, trained.recording, TARGETS)
    slope = random_targets(model, TARGETS, seed=1)
    found.interval(0, 3, by_parameter(slope))
    gains = [torch.zeros(6, dtype=torch.float64, requires_grad=True) for _ in steps]
    end = unrolled(trained, gains)
    for target in range(TARGETS):
        total = sum((slope[target][name] * value).sum() for name, value in end.items())
        wanted = torch.autograd.grad(total, gains, retain_graph=True)
        for effects in found.samples:
            assert effects.effects[:, target] == pytest.approx(wanted[effects.step - 1].numpy(), rel=1e-8)


def unrolled(trained: Trained, gains: list[torch.Tensor]) -> Gradient:
    """AdamW by its textbook: gradients as they were taken, 1 + gain times every sample's.

    Weight decay has an account of its own, so it is that of the weights that were there.
    """
    recording = trained.recording
    weights = recording.store.read(0, "weights")
    first = {name: torch.zeros_like(value) for name, value in weights.items()}
    group = trained.optimizer.param_groups[0]
    for step, gain in enumerate(gains, start=1):
        at, second = recording.store.read(step - 1, "weights"), recording.store.read(step, "second")
        rate = 1e-2 * (1 - step / (2 * len(gains)))
        place(trained.model, at)
        parts = [(part, row) for part in trained.steps[step - 1] for row in range(len(part.batch.targets))]
        singles = [gradient_of(trained.model, *one) for one in parts]
        for name, value in weights.items():
            g = -sum((1 + gain[index]) * single[name] for index, single in enumerate(singles))
            first[name] = 0.9 * first[name] + 0.1 * recording.facts[step - 1].clip * g
            unbiased = first[name] / (1 - 0.9**step)
            root = (second[name] / (1 - group["betas"][1] ** step)).sqrt() + group["eps"]
            weights[name] = value - rate * group["weight_decay"] * at[name] - rate * unbiased / root
    last = recording.store.read(len(gains), "weights")
    assert all(torch.allclose(weights[name], value, rtol=1e-9, atol=1e-12) for name, value in last.items())
    return weights


def place(model: Any, weights: Gradient) -> None:
    with torch.no_grad():
        for name, value in selection(model).items():
            value.copy_(weights[name])


def test_order_accumulation_and_padding_do_not_matter(model: Any, tmp_path: Path) -> None:
    steps = taught(3)
    trained = train(model, steps, tmp_path)
    singles = [[single(part, row) for part in parts for row in range(3)][::-1] for parts in steps]
    slope = random_targets(model, TARGETS)
    found = []
    for given in (steps, singles):
        recording = trained.recording._replace(learned=lambda step, given=given: given[step - 1])
        attribution = Attribution(model, recording, TARGETS)
        attribution.interval(0, 3, by_parameter(slope))
        found.append(attribution.samples)
    for together, apart in zip(*found, strict=True):
        # Rotations of positions, of which left padding takes some, are in float32.
        assert together.effects == pytest.approx(apart.effects[::-1], rel=1e-5, abs=1e-8)


def single(part: Learned, row: int) -> Learned:
    """One sample in a batch of its own, without padding."""
    batch, length = part.batch, int(part.batch.mask[row].sum())
    width = batch.targets.shape[1]
    seen = batch.inputs["attention_mask"][row].bool()
    inputs = {name: value[row : row + 1, seen] for name, value in batch.inputs.items()}
    cut = batch._replace(
        inputs=inputs, targets=batch.targets[row : row + 1, :length], mask=batch.mask[row : row + 1, :length]
    )
    assert width >= length
    return part._replace(batch=cut, weights=part.weights[row : row + 1, :length])


def test_a_sample_without_weight_does_exactly_nothing(model: Any, tmp_path: Path) -> None:
    steps = taught(2)
    steps[1][0].weights[1] = 0
    trained = train(model, steps, tmp_path)
    found = Attribution(model, trained.recording, TARGETS)
    found.interval(0, 2, by_parameter(random_targets(model, TARGETS)))
    [effects] = [effects for effects in found.samples if effects.step == 2]
    assert (effects.effects[1] == 0).all()
    assert (effects.effects[[0, 2]] != 0).all()


def test_steps_in_which_no_sample_teaches_are_explained_by_momentum_up_to_the_trainings_own_rounding(
    model: Any, tmp_path: Path
) -> None:
    """In float32, and each in an interval of its own."""
    steps = taught()
    for part in (part for parts in steps[2:] for part in parts):
        part.weights.zero_()
    trained = train(model.float(), steps, tmp_path, partial(adamw, weight_decay=0.0))
    silent = accounted(trained)
    assert all((one.gross == 0).all() and (one.rounding != 0).all() for one in silent[:4])
    assert max(unexplained(silent)) < 1e-3
    [*before, last] = trained.recording.facts
    faster = {name: one._replace(rate=1.5 * one.rate) for name, one in last.parameters.items()}
    wrong = trained.recording._replace(facts=[*before, last._replace(parameters=faster)])
    assert unexplained(accounted(trained._replace(recording=wrong)))[0] > 0.02, "something else moved the weights"


def accounted(trained: Trained) -> list[Interval]:
    """Of every step, the last one first."""
    found = Attribution(trained.model, trained.recording, TARGETS)
    slope = by_parameter(random_targets(trained.model, TARGETS))
    return [found.interval(start, end, slope) for start, end in backwards(range(STEPS + 1))]


def test_a_dropped_samples_account_is_what_its_gradient_would_have_added(model: Any, tmp_path: Path) -> None:
    """With plain descent nothing else depends on it in its last step, so it can be left out for real."""
    plain = partial(torch.optim.SGD, lr=1e-2)
    steps = taught(3)
    whole = train(model, steps, tmp_path / "whole", plain, clipped=1e9)
    slope = random_targets(model, TARGETS)
    found = Attribution(model, whole.recording, TARGETS)
    found.interval(0, 3, by_parameter(slope))
    place(model, whole.recording.store.read(0, "weights"))
    steps[2][1].weights[2] = 0
    without = train(model, steps, tmp_path / "without", plain, clipped=1e9)
    ends = [one.recording.store.read(3, "weights") for one in (whole, without)]
    for target in range(TARGETS):
        difference = sum(float((slope[target][n] * (ends[0][n] - ends[1][n])).sum()) for n in ends[0])
        assert found.samples[0].effects[5, target] == pytest.approx(difference, rel=1e-9)


def _closed(trained: Trained) -> bool:
    return all(np.abs(one.rounding).max() < 1e-9 * np.abs(one.predicted).max() for one in attributed(trained)[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    "mistake",
    [
        lambda one: one._replace(rate=one.rate * (1 - 0.9**STEPS)),
        lambda one: one._replace(bias=1.0),
        lambda one: one._replace(momentum=one.momentum * 0.99),
        lambda one: one._replace(gain=1.0),
        lambda one: one._replace(epsilon=0.0),
        lambda one: one._replace(shrink=0.0),
    ],
)
def test_a_mistake_in_the_optimizers_factors_shows(model: Any, tmp_path: Path, mistake: Callable[..., Any]) -> None:
    trained = train(model, taught(), tmp_path)
    assert _closed(trained)
    wrong = [
        facts._replace(parameters={name: mistake(one) for name, one in facts.parameters.items()})
        for facts in trained.recording.facts
    ]
    assert not _closed(trained._replace(recording=trained.recording._replace(facts=wrong)))


def test_a_wrong_clip_factor_shows(model: Any, tmp_path: Path) -> None:
    trained = train(model, taught(), tmp_path)
    wrong = [facts._replace(clip=1.0) for facts in trained.recording.facts]
    assert min(facts.clip for facts in trained.recording.facts) < 1
    assert not _closed(trained._replace(recording=trained.recording._replace(facts=wrong)))


@pytest.mark.slow
def test_momentums_tail_beyond_the_end_of_the_training_shows(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever counts what the last gradients would have done after the last step counts too much."""
    trained = train(model, taught(), tmp_path)
    enter = Attribution._enter

    def with_tail(self: Attribution, step: int, facts: Any, given: Any) -> None:
        enter(self, step, facts, given)
        if step == STEPS:
            for target in self.engine.targets.values():
                target[: self.count] /= 1 - 0.9

    monkeypatch.setattr(Attribution, "_enter", with_tail)
    assert not _closed(trained)


def test_tokens_sum_to_their_sample(model: Any, tmp_path: Path) -> None:
    trained = train(model, taught(3), tmp_path)
    found = Attribution(model, trained.recording, TARGETS)
    found.mixtures, found.token_effects = np.array([[0.25, 0.75], [1.0, 0.0]]), token_effects
    found.interval(1, 3, by_parameter(random_targets(model, TARGETS, seed=1)))
    found.interval(0, 1, by_parameter(random_targets(model, TARGETS, seed=2)))
    for effects in found.samples:
        tokens = found.tokens[effects.step]
        assert [len(row) for row in tokens] == [5, 3, 4] * 2
        whole = effects.effects @ found.mixtures.T
        assert np.array([row.sum(0) for row in tokens]) == pytest.approx(whole, rel=1e-9)


def test_tokens_are_told_apart_by_what_they_are_for() -> None:
    pieces = ["<think>", " a", " b", " </", "think", ">", "<answer>", " 4", "</answer>", "<end>"]
    assert kinds(pieces, [False] * 9 + [True]) == [
        *["format", "reasoning", "reasoning", "format", "format", "format"],
        *["format", "answer", "format", "end"],
    ]
