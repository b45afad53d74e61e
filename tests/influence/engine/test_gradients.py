"""Targets: gradients by ordinary autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from unlike import (
    LENGTHS,
    batch_of,
    close,
    one_by_one_in_batch,
    questions_with_images,
    texts,
)

from holdfast.errors import UserError
from holdfast.influence.engine.gradients import (
    batch_gradient,
    batch_gradients,
    completion_logits,
    log_likelihood,
    mean_gradient,
    selection,
    shared_completion_logits,
)


def test_a_likelihood_is_summed_over_real_tokens_only() -> None:
    given = batch_of(texts(40, LENGTHS))
    logits = torch.randn(*given.targets.shape, 40, dtype=torch.float64)
    for row, (_, length) in enumerate(LENGTHS):
        loss = nn.functional.cross_entropy(logits[row, :length], given.targets[row, :length], reduction="sum")
        assert torch.allclose(log_likelihood(logits, given)[row], -loss)


def test_a_likelihood_in_half_precision_is_summed_in_single() -> None:
    given = batch_of(texts(40, LENGTHS))
    assert log_likelihood(torch.zeros(*given.targets.shape, 40, dtype=torch.bfloat16), given).dtype == torch.float32


def test_a_batch_gradient_is_what_backward_leaves(text_model: Callable[..., Any]) -> None:
    model, given = text_model("Llama"), batch_of(texts(40, LENGTHS))
    output = model(**given.inputs).logits[:, -given.targets.shape[1] - 1 : -1]
    log_likelihood(output, given).sum().backward()
    for name, part in batch_gradient(model, given).items():
        assert close(part, selection(model)[name].grad)


def test_several_objectives_have_from_one_pass_the_gradients_of_passes_of_their_own(
    vision_model: Any, processor: Any
) -> None:
    given = batch_of(questions_with_images(processor))
    passes = [0]
    vision_model.register_forward_hook(lambda *_: passes.append(1))
    objectives = [log_likelihood, lambda logits, batch: logits.square().sum((1, 2)), log_likelihood]
    together = batch_gradients(vision_model, given, objectives)
    assert sum(passes) == 1
    for found, objective in zip(together, objectives, strict=True):
        for name, part in batch_gradient(vision_model, given, objective).items():
            assert torch.equal(found[name], part)


def test_parameters_that_a_batch_does_not_reach_have_zero_gradient(vision_model: Any, processor: Any) -> None:
    for name, value in vision_model.named_parameters():
        value.requires_grad_("visual" in name)
    found = mean_gradient(vision_model, [batch_of(questions_with_images(processor)[2:3])])
    assert not any(value.any() for value in found.values())


def test_a_mean_per_token_weighs_samples_alike(text_model: Callable[..., Any]) -> None:
    model = text_model("Llama")
    samples = texts(40, LENGTHS)
    batches = [batch_of(samples[:2]), batch_of(samples[2:])]
    singles = [single for batch in batches for single in one_by_one_in_batch(model, batch)]
    mean = mean_gradient(model, batches, per_token=True)
    for name, value in mean.items():
        assert close(value, sum(single[name] / n for single, (_, n) in zip(singles, LENGTHS, strict=True)) / 3)


def test_a_mean_of_nothing_is_refused(text_model: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match="at least one sample"):
        mean_gradient(text_model("Llama"), [])


def test_a_prompt_of_several_completions_is_read_once_and_their_gradient_is_the_same(
    vision_model: Any, processor: Any
) -> None:
    first, second, *_ = questions_with_images(processor)
    given = batch_of(
        [sample._replace(completion=said) for sample in (first, second) for said in ([3, 4, 5], [6], [7, 8])]
    )
    rows: list[int] = []
    layer = vision_model.model.language_model.layers[0]
    layer.register_forward_pre_hook(lambda _, arguments: rows.append(len(arguments[0])))
    plain = batch_gradient(vision_model, given)
    shared = batch_gradient(vision_model, given, logits=shared_completion_logits)
    # All rows in one pass; then both prompts, and what follows them.
    assert rows == [6, 2, 6]
    for name, part in plain.items():
        assert (shared[name] - part).norm() <= 1e-6 * part.norm(), name


def test_a_model_that_shares_no_prompts_reads_them_row_by_row(text_model: Callable[..., Any]) -> None:
    model, given = text_model("GPTNeoX"), batch_of(texts(40, LENGTHS))
    assert torch.equal(shared_completion_logits(model, given), completion_logits(model, given))
