"""What the engine notices about itself and refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from unlike import (
    LENGTHS,
    Recurrent,
    batch_of,
    questions_with_images,
    random_targets,
    texts,
)

from holdfast.errors import UserError
from holdfast.influence.engine import algebra, capture, parameter
from holdfast.influence.engine.engine import Engine
from holdfast.influence.engine.gradients import mean_gradient
from holdfast.models.encode import TeacherForced

ROW_INDICES = capture._row_indices


def _product_of_sums(a: Tensor, g: Tensor, targets: Tensor) -> algebra.Reduced:
    return algebra.materialised(a.sum(1, keepdim=True), g.sum(1, keepdim=True), targets)


def _without_cross_term(self: parameter.ParameterGradients) -> None:
    self.rows = self.scattered = None


def _mean_over_time(a: Tensor, g: Tensor, targets: Tensor) -> algebra.Reduced:
    return algebra.materialised(a, g / a.shape[1], targets)


@pytest.mark.parametrize(
    ("place", "defect"),
    [
        ((algebra, "product"), _product_of_sums),
        ((algebra, "product"), _mean_over_time),
        ((parameter.ParameterGradients, "_cross"), _without_cross_term),
        ((capture, "_row_indices"), lambda sizes: ROW_INDICES(sizes).roll(1, 0)),
    ],
)
def test_verification_notices_wrong_algebra(
    vision_model: Any, processor: Any, monkeypatch: pytest.MonkeyPatch, place: tuple[Any, str], defect: Any
) -> None:
    given = batch_of(questions_with_images(processor))
    Engine(vision_model, []).verify(given, tolerance=1e-9)
    monkeypatch.setattr(*place, defect)
    with pytest.raises(UserError, match="do not add up"):
        Engine(vision_model, []).verify(given, tolerance=1e-6)


def test_rounding_is_told_from_a_lost_cross_term(
    text_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = batch_of(texts(4096, [(60, 120)]))
    shape = {"vocab_size": 4096, "hidden_size": 256, "intermediate_size": 512, "tie_word_embeddings": True}
    model = text_model("Llama", **shape).float()
    Engine(model, []).verify(given)
    monkeypatch.setattr(parameter.ParameterGradients, "_cross", _without_cross_term)
    with pytest.raises(UserError, match="block embed_tokens do not add up"):
        Engine(model, []).verify(given)


def test_half_precision_is_no_error(text_model: Callable[..., Any]) -> None:
    Engine(model := text_model("GPTNeoX").bfloat16(), []).verify(batch_of(texts(40, LENGTHS)))
    assert model.dtype == torch.bfloat16


def test_a_gradient_that_is_not_finite_is_not_called_a_hidden_use(text_model: Callable[..., Any]) -> None:
    model = text_model("Llama")
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0, 0] = torch.nan
    with pytest.raises(UserError, match="is not finite"):
        Engine(model, []).verify(batch_of(texts(40, LENGTHS)))


class Sly(Recurrent):
    """Uses a weight behind its module's back."""

    def forward(self, input_ids: Tensor, logits_to_keep: int, **_: Any) -> Any:
        output = super().forward(input_ids, logits_to_keep)
        output.logits = (
            output.logits + nn.functional.linear(output.logits[..., :8], self.again.weight).sum(-1)[..., None]
        )
        output.logits = output.logits * (1 + self.unused.weight.sum())
        return output


def test_verification_names_the_block_whose_weights_are_used_without_their_module() -> None:
    model = Sly().double()
    with pytest.raises(UserError, match=r"block (again|unused) do not add up"):
        Engine(model, []).verify(batch_of(texts(40, LENGTHS)))


def test_a_parameter_of_an_unknown_module_is_refused_by_name(text_model: Callable[..., Any]) -> None:
    model = text_model("Llama")
    model.model.norm = nn.Module()
    model.model.norm.extra = nn.Parameter(torch.ones(3))
    with pytest.raises(UserError, match=r"`model\.norm\.extra` belongs to a Module.*freeze it or choose other layers"):
        Engine(model, [])


def test_a_fully_frozen_model_is_refused(text_model: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match="every parameter is frozen"):
        Engine(text_model("Llama").requires_grad_(False), [])


def test_targets_that_do_not_fit_are_refused_by_name(text_model: Callable[..., Any]) -> None:
    model = text_model("Llama")
    [target] = random_targets(model, 1)
    with pytest.raises(UserError, match=r"`model\.norm\.weight` has shape \(3,\) in target 1"):
        Engine(model, [target, {**target, "model.norm.weight": torch.ones(3)}])
    with pytest.raises(UserError, match=r"`lm_head\.weight` is missing in target 0"):
        Engine(model, [{name: value for name, value in target.items() if name != "lm_head.weight"}])
    with pytest.raises(UserError, match="`stranger` is in a target"):
        Engine(model, [{**target, "stranger": torch.ones(3)}])


def test_a_sample_that_supervises_nothing_is_named_before_the_pass(text_model: Callable[..., Any]) -> None:
    given = batch_of([*texts(40, LENGTHS), *texts(40, [(3, 0)])])
    with pytest.raises(UserError, match="sample 3 of the batch has no supervised token"):
        Engine(text_model("Llama"), []).measure(given)
    with pytest.raises(UserError, match="sample 3 of the batch has no supervised token"):
        mean_gradient(text_model("Llama"), [given])


def test_rows_that_belong_to_no_sample_are_refused_by_module(vision_model: Any, processor: Any) -> None:
    given = batch_of(questions_with_images(processor))
    with pytest.raises(UserError, match=r"visual\.merger\.mlp\.2 sees .* cannot be told apart"):
        Engine(vision_model, []).measure(given._replace(images=(1, 1, 0, 1)))


def test_after_an_error_the_model_is_as_it_was(text_model: Callable[..., Any]) -> None:
    model = text_model("Llama").train()
    model.model.norm.weight.requires_grad_(False)
    flags = [value.requires_grad for value in model.parameters()]

    def stumble(logits: Tensor, batch: TeacherForced) -> Tensor:
        raise ZeroDivisionError

    engine = Engine(model, [])
    with pytest.raises(ZeroDivisionError):
        engine.measure(batch_of(texts(40, LENGTHS)), stumble)
    assert [value.requires_grad for value in model.parameters()] == flags
    assert all(value.grad is None for value in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(module.training for module in model.modules())
