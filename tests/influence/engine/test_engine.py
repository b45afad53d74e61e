"""The engine against gradients of one sample at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from unlike import (
    LENGTHS,
    Recurrent,
    Sample,
    batch_of,
    close,
    inner,
    one_by_one,
    one_by_one_in_batch,
    questions_with_images,
    random_targets,
    texts,
)

from holdfast.influence.engine.engine import Engine, Influences, block_of
from holdfast.influence.engine.gradients import (
    Gradient,
    batch_gradient,
    log_likelihood,
    mean_gradient,
    selection,
)
from holdfast.models.encode import TeacherForced
from holdfast.models.lora import freeze


def check(model: Any, given: TeacherForced, singles: list[Gradient]) -> Influences:
    targets = random_targets(model, 3)
    engine = Engine(model, targets)
    measured = engine.measure(given)
    for row, single in enumerate(singles):
        assert close(measured.norms2[row], inner(single, single, engine.blocks))
        for index, target in enumerate(targets):
            assert close(measured.dots[row, index], inner(single, target, engine.blocks))
    assert measured.finite.all()
    return measured


def check_against_single_samples(model: Any, samples: list[Sample]) -> Influences:
    return check(model, batch_of(samples), one_by_one(model, samples))


def check_within_batch(model: Any, given: TeacherForced) -> Influences:
    return check(model, given, one_by_one_in_batch(model, given))


def test_every_parameter_of_a_vision_language_model_is_measured_exactly(vision_model: Any, processor: Any) -> None:
    samples = questions_with_images(processor)
    measured = check_against_single_samples(vision_model, samples)
    assert measured.tokens.tolist() == [len(sample.completion) for sample in samples]
    assert measured.norm2.shape == (4,)
    assert measured.dot.shape == (4, 3)


def test_a_sample_without_images_moves_nothing_in_the_tower(vision_model: Any, processor: Any) -> None:
    engine = Engine(vision_model, [])
    norms2 = engine.measure(batch_of(questions_with_images(processor))).norms2
    tower = [index for index, block in enumerate(engine.blocks) if block.startswith("visual")]
    assert (norms2[2, tower] == 0).all()
    assert (norms2[:2, tower] > 0).all()


def test_a_batch_without_any_image_is_measured(vision_model: Any, processor: Any) -> None:
    check_against_single_samples(vision_model, questions_with_images(processor)[2:3])


def test_a_frozen_tower_takes_no_part(vision_model: Any, processor: Any) -> None:
    freeze(vision_model, ("visual",))
    check_against_single_samples(vision_model, questions_with_images(processor))


def test_layers_can_be_chosen(vision_model: Any, processor: Any) -> None:
    for name, value in vision_model.named_parameters():
        value.requires_grad_("layers.1.mlp" in name or "blocks.0" in name)
    measured = check_against_single_samples(vision_model, questions_with_images(processor))
    assert Engine(vision_model, []).blocks == ["visual.blocks.0", "layers.1"]
    assert measured.norms2.shape == (4, 2)


def test_adapters_are_measured_in_their_own_space(vision_model: Any, processor: Any) -> None:
    config = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.5, target_modules=["q_proj", "v_proj", "down_proj", "qkv"])
    adapted = get_peft_model(vision_model, config)
    with torch.no_grad():
        for value in selection(adapted).values():
            value += 0.1 * torch.randn_like(value)
    check_against_single_samples(adapted, questions_with_images(processor))
    assert Engine(adapted, []).blocks == ["visual.blocks.0", "visual.blocks.1", "layers.0", "layers.1"]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", ["Llama", "GPTNeoX"])
def test_text_models_are_measured_exactly(text_model: Callable[..., Any], kind: str, tied: bool) -> None:
    check_within_batch(text_model(kind, tie_word_embeddings=tied), batch_of(texts(40, LENGTHS)))


def test_the_padding_row_of_an_embedding_gets_no_gradient_from_its_lookups(text_model: Callable[..., Any]) -> None:
    samples = texts(40, LENGTHS)
    samples[0].prompt["input_ids"][1] = 0
    samples[1].completion[0] = 0
    check_within_batch(text_model("Llama", tie_word_embeddings=True), batch_of(samples))


def test_all_uses_of_a_parameter_are_summed_before_they_are_squared() -> None:
    torch.manual_seed(0)
    check_within_batch(Recurrent().double(), batch_of(texts(40, [(4, 3), (4, 3)])))


def test_dots_are_directional_derivatives(text_model: Callable[..., Any]) -> None:
    model = text_model("Llama", tie_word_embeddings=True)
    given = batch_of(texts(40, LENGTHS))
    [direction] = random_targets(model, 1)

    def likelihoods(parameters: dict[str, Tensor]) -> Tensor:
        inputs = {**given.inputs, "use_cache": False, "logits_to_keep": given.targets.shape[1] + 1}
        output = torch.func.functional_call(model, parameters, (), inputs)
        return log_likelihood(output.logits[:, :-1], given)

    with sdpa_kernel(SDPBackend.MATH):
        values, slopes = torch.func.jvp(likelihoods, (selection(model),), (direction,))
    measured = Engine(model, [direction]).measure(given)
    assert close(measured.dot[:, 0], slopes.detach())
    assert close(measured.loglik, values.detach())


def test_a_sample_is_measured_the_same_in_any_company(vision_model: Any, processor: Any) -> None:
    samples = questions_with_images(processor)
    engine = Engine(vision_model, random_targets(vision_model, 2))
    together = engine.measure(batch_of(samples))
    reordered = engine.measure(batch_of([samples[3], samples[1]]))
    alone = engine.measure(batch_of([samples[1]]))
    for other in (reordered, alone):
        assert close(other.norms2[-1], together.norms2[1])
        assert close(other.dots[-1], together.dots[1])
        assert close(other.loglik[-1], together.loglik[1])


def test_samples_add_up_to_their_batch(vision_model: Any, processor: Any) -> None:
    given = batch_of(questions_with_images(processor))
    whole = batch_gradient(vision_model, given)
    engine = Engine(vision_model, [whole, mean_gradient(vision_model, [given, given])])
    dots = engine.measure(given).dots.sum(0)
    assert close(dots[0], inner(whole, whole, engine.blocks))
    assert close(dots[1] * 4, dots[0])


def test_a_sample_points_its_own_way_and_a_negative_weight_turns_it_round(text_model: Callable[..., Any]) -> None:
    model = text_model("Llama")
    [sample] = texts(40, [(4, 3)])
    [own] = one_by_one(model, [sample])
    measured = Engine(model, [own]).measure(batch_of([sample, sample]))
    cosine = measured.dot[:, 0] / (measured.norm2 * inner(own, own, Engine(model, []).blocks).sum()).sqrt()
    assert torch.allclose(cosine, torch.ones(2, dtype=torch.float64))
    turned = Engine(model, [own]).measure(batch_of([sample]), lambda *given: -2 * log_likelihood(*given))
    assert torch.allclose(turned.dot[:, 0], -2 * measured.dot[:1, 0])


def test_another_objective_takes_the_same_pass(text_model: Callable[..., Any]) -> None:
    model = text_model("Llama")
    given = batch_of(texts(40, LENGTHS))
    noise = torch.randn(3, 5, 40, dtype=torch.float64)

    def probe(logits: Tensor, batch: TeacherForced) -> Tensor:
        return (logits * noise * batch.mask[..., None]).sum((1, 2))

    whole = batch_gradient(model, given, probe)
    dots = Engine(model, [whole]).measure(given, probe).dot
    assert close(dots.sum(), inner(whole, whole, Engine(model, []).blocks).sum())


def test_a_broken_sample_is_reported_and_spares_the_others(text_model: Callable[..., Any]) -> None:
    model = text_model("Llama")
    given = batch_of(texts(40, LENGTHS))
    engine = Engine(model, random_targets(model, 1))
    broken = engine.measure(given, lambda *of: log_likelihood(*of) * torch.tensor([1.0, torch.nan, 1.0]))
    assert broken.finite.tolist() == [True, False, True]
    assert torch.equal(broken.norms2[[0, 2]], engine.measure(given).norms2[[0, 2]])


def test_single_precision_is_exact_to_its_rounding(processor: Any) -> None:
    from holdfast.models.tiny.build import build_model

    torch.manual_seed(0)
    model = build_model(processor, hidden=64, layers=1)
    given = batch_of(questions_with_images(processor))
    targets = random_targets(model, 2)
    single = Engine(model, targets).measure(given)
    double = Engine(model.double(), targets).measure(given)
    assert torch.allclose(single.norm2, double.norm2, rtol=1e-4)
    spread = (double.norm2[:, None] * sum(value.numel() for value in targets[0].values())).sqrt()
    assert ((single.dot - double.dot).abs() / spread).max() < 1e-5


def test_no_gradient_of_a_weight_is_computed(text_model: Callable[..., Any]) -> None:
    model = text_model("Llama")
    reached = []
    for value in model.parameters():
        value.register_hook(reached.append)
    Engine(model, []).measure(batch_of(texts(40, LENGTHS)))
    assert not reached
    assert all(value.requires_grad and value.grad is None for value in model.parameters())


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("model.language_model.layers.3.mlp.down_proj.weight", "layers.3"),
        ("model.language_model.embed_tokens.weight", "embed_tokens"),
        ("model.language_model.norm.weight", "norm"),
        ("model.visual.blocks.1.attn.qkv.bias", "visual.blocks.1"),
        ("model.visual.merger.mlp.0.weight", "visual.merger"),
        ("model.visual.patch_embed.proj.weight", "visual.patch_embed"),
        ("base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_A.default.weight", "layers.0"),
        ("gpt_neox.layers.0.attention.dense.bias", "layers.0"),
        ("gpt_neox.embed_in.weight", "embed_in"),
        ("lm_head.weight", "lm_head"),
        ("weight", "weight"),
    ],
)
def test_parameters_lie_in_blocks_that_people_know(name: str, block: str) -> None:
    assert block_of(name) == block
