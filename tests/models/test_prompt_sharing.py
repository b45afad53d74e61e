"""A prompt read once for all its completions gives what reading it with every completion gives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from holdfast.models.load import PLACEHOLDERS
from holdfast.models.prompt_sharing import can_share, shared_prompts
from holdfast.models.tiny.build import build_model

ROWS = [0, 1, 0, 2, 1, 0, 3]
LIMIT = 6
COLORED = [((64, 64), "red"), ((64, 128), "green"), ((64, 128), "blue")]
ROWWISE = {"input_ids", "attention_mask", "mm_token_type_ids"}


@pytest.fixture(scope="module", params=["Qwen2.5-VL", "Qwen2-VL"])
def model(request: pytest.FixtureRequest, processor: Any) -> Any:
    torch.manual_seed(0)
    model = build_model(processor, hidden=64, layers=2)
    if request.param == "Qwen2-VL":
        model = Qwen2VLForConditionalGeneration(older(model.config))
    return model.double().eval()


def older(config: Any) -> Qwen2VLConfig:
    """Qwen2-VL of the same size."""
    text = {name: value for name, value in config.text_config.to_dict().items() if name != "model_type"}
    vision = {name: getattr(config.vision_config, name) for name in ("depth", "num_heads", "patch_size")}
    tokens = {name: getattr(config, name) for name in PLACEHOLDERS}
    return Qwen2VLConfig(
        text_config=text,
        vision_config={
            **vision,
            "embed_dim": config.vision_config.hidden_size,
            "hidden_size": config.text_config.hidden_size,
            "mlp_ratio": 2,
            "spatial_merge_size": config.vision_config.spatial_merge_size,
        },
        **tokens,
        tie_word_embeddings=True,
    )


@pytest.fixture(scope="module")
def batch(processor: Any) -> dict[str, Tensor]:
    """Rollouts of four prompts in mixed order: other lengths, other image sizes, and one text asked of two images."""
    colors = torch.Generator().manual_seed(1)
    images = [
        Image.fromarray(torch.randint(0, 255, (*size, 3), generator=colors).byte().numpy())
        for size in ((64, 64), (64, 128), (128, 64), (64, 64))
    ]
    texts = ["where is red", "where", "the order of the pieces is", "where is red"]
    chats = [
        processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}],
            add_generation_prompt=True,
        )
        for text in texts
    ]
    return dict(
        processor(
            text=[chats[row] for row in ROWS],
            images=[images[row] for row in ROWS],
            padding=True,
            padding_side="left",
            return_tensors="pt",
            return_mm_token_type_ids=True,
        )
    )


def followed(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The prompts with completions of different lengths after them."""
    rng = torch.Generator().manual_seed(2)
    ids = torch.randint(20, 60, (len(ROWS), LIMIT), generator=rng)
    lengths = torch.tensor([6, 3, 1, 6, 5, 2, 4])
    mask = (torch.arange(LIMIT) < lengths[:, None]).long()
    zeros = torch.zeros_like(ids)
    after = {"input_ids": ids, "attention_mask": mask, "mm_token_type_ids": zeros}
    return {**batch, **{name: torch.cat([batch[name], more], 1) for name, more in after.items()}}


@pytest.fixture
def rows_read(model: Any) -> Iterator[list[int]]:
    """How many rows each pass through the language model had."""
    seen: list[int] = []
    hook = model.model.language_model.register_forward_pre_hook(
        lambda _, args, given: seen.append(len(given["inputs_embeds"])), with_kwargs=True
    )
    yield seen
    hook.remove()


TEXT = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}


@pytest.fixture(
    params=[
        (LlamaForCausalLM, LlamaConfig(**TEXT)),
        (Qwen2ForCausalLM, Qwen2Config(**TEXT)),
        (Qwen2ForCausalLM, Qwen2Config(**TEXT, use_sliding_window=True, sliding_window=4, max_window_layers=1)),
        (Qwen3ForCausalLM, Qwen3Config(**TEXT, head_dim=8)),
    ],
    ids=["Llama", "Qwen2", "Qwen2 with a window", "Qwen3"],
)
def reader(request: pytest.FixtureRequest) -> Any:
    """A model of text."""
    torch.manual_seed(0)
    kind, config = request.param
    return kind(config).double().eval()


@pytest.fixture
def words() -> dict[str, Tensor]:
    """Three prompts of unlike lengths in mixed order, padded on the left."""
    rng = torch.Generator().manual_seed(4)
    prompts = [torch.randint(1, 64, (length,), generator=rng) for length in (9, 5, 7, 9)]
    rows = [torch.nn.functional.pad(prompts[row], (9 - len(prompts[row]), 0)) for row in ROWS]
    ids = torch.stack(rows)
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


def checkpointed(model: Any, checkpoints: bool) -> None:
    """Put the model in the state in which it is trained."""
    model.train()
    if checkpoints:
        model.gradient_checkpointing_enable()


def learned(model: Any, inputs: dict[str, Tensor], hidden: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Log-probabilities of what follows the prompts, and the gradients of a weighted sum of them."""
    model.zero_grad()
    ids, mask = (inputs[name][:, -LIMIT:] for name in ("input_ids", "attention_mask"))
    scores = model.lm_head(hidden).log_softmax(-1).gather(-1, ids[..., None]).squeeze(-1) * mask
    (scores * torch.linspace(-1, 1, scores.numel(), dtype=torch.float64).view_as(scores)).sum().backward()
    return scores.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("checkpoints", [False, True], ids=["kept", "checkpointed"])
def test_log_probabilities_and_gradients_are_those_of_the_plain_pass(
    model: Any, batch: dict[str, Tensor], rows_read: list[int], checkpoints: bool
) -> None:
    inputs, width = followed(batch), batch["input_ids"].shape[1]
    scores, gradients = learned(model, inputs, model.model(**inputs, use_cache=False)[0][:, -LIMIT - 1 : -1])
    try:
        checkpointed(model, checkpoints)
        with shared_prompts(model, width):
            hidden = model.model(**inputs, use_cache=False)[0]
        shared, shared_gradients = learned(model, inputs, hidden)
    finally:
        model.gradient_checkpointing_disable()
        model.eval()
    assert rows_read == [7, 4, 7]
    # Norms compute in float32 in a float64 model too.
    torch.testing.assert_close(shared, scores, rtol=1e-6, atol=1e-6)
    for ours, theirs in zip(shared_gradients, gradients, strict=True):
        assert (ours - theirs).norm() <= 1e-6 * theirs.norm()


@pytest.mark.parametrize("checkpoints", [False, True], ids=["kept", "checkpointed"])
def test_models_of_text_read_a_prompt_once(reader: Any, words: dict[str, Tensor], checkpoints: bool) -> None:
    inputs, width = followed({**words, "mm_token_type_ids": words["input_ids"]}), words["input_ids"].shape[1]
    del inputs["mm_token_type_ids"]
    scores, gradients = learned(reader, inputs, reader.model(**inputs, use_cache=False)[0][:, -LIMIT - 1 : -1])
    seen: list[int] = []
    reader.model.layers[0].register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    checkpointed(reader, checkpoints)
    with shared_prompts(reader, width):
        hidden = reader.model(**inputs)[0]
    assert seen == [4, 7]
    shared, shared_gradients = learned(reader, inputs, hidden)
    torch.testing.assert_close(shared, scores, rtol=1e-6, atol=1e-6)
    for ours, theirs in zip(shared_gradients, gradients, strict=True):
        assert (ours - theirs).norm() <= 1e-6 * theirs.norm()


def test_models_of_text_sample_the_same_tokens(reader: Any, words: dict[str, Tensor]) -> None:
    def sampled() -> Tensor:
        torch.manual_seed(3)
        return reader.generate(**words, max_new_tokens=5, do_sample=True)

    alone = sampled()
    seen: list[int] = []
    reader.model.layers[0].register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    with shared_prompts(reader):
        together = sampled()
    assert seen == [4, 7, 7, 7, 7]
    assert torch.equal(together, alone)
    assert len(alone[:, -5:].unique(dim=0)) > 1


def test_checkpoints_keep_no_activations_of_layers(model: Any, batch: dict[str, Tensor]) -> None:
    """What lies in memory between the passes is much less than without them, and a prompt's layer is read twice."""

    def kept(checkpoints: bool) -> tuple[int, int]:
        saved, passes = 0, 0

        def count(value: Tensor) -> Tensor:
            nonlocal saved
            saved += value.numel()
            return value

        def passed(*_: Any) -> None:
            nonlocal passes
            passes += 1

        inputs = followed(batch)
        checkpointed(model, checkpoints)
        hook = model.model.language_model.layers[0].self_attn.register_forward_hook(passed)
        try:
            width = batch["input_ids"].shape[1]
            with torch.autograd.graph.saved_tensors_hooks(count, lambda value: value), shared_prompts(model, width):
                hidden = model.model(**inputs, use_cache=False)[0]
            hidden.sum().backward()
        finally:
            hook.remove()
            model.gradient_checkpointing_disable()
            model.eval()
        return saved, passes

    (whole, once), (little, twice) = kept(False), kept(True)
    assert little < 0.4 * whole
    assert (once, twice) == (2, 4)


def test_reentrant_checkpoints_do_without(model: Any) -> None:
    try:
        model.gradient_checkpointing_enable({"use_reentrant": True})
        assert not can_share(model)
        model.gradient_checkpointing_enable({"use_reentrant": False})
        assert can_share(model)
    finally:
        model.gradient_checkpointing_disable()


def test_completions_of_one_token_need_no_second_pass(
    model: Any, batch: dict[str, Tensor], rows_read: list[int]
) -> None:
    width = batch["input_ids"].shape[1]
    inputs = {name: value[:, : width + 1] if name in ROWWISE else value for name, value in followed(batch).items()}
    plain = model.model(**inputs, use_cache=False)[0][:, width - 1 : -1]
    with shared_prompts(model, width):
        shared = model.model(**inputs, use_cache=False)[0]
    assert rows_read == [7, 4]
    torch.testing.assert_close(shared, plain, rtol=1e-6, atol=1e-6)


def test_the_same_tokens_are_sampled(model: Any, batch: dict[str, Tensor], rows_read: list[int]) -> None:
    def sampled() -> Tensor:
        torch.manual_seed(3)
        return model.generate(**batch, max_new_tokens=5, do_sample=True, suppress_tokens=[model.config.image_token_id])

    alone = sampled()
    with shared_prompts(model):
        together = sampled()
    assert rows_read == [7, 7, 7, 7, 7, 4, 7, 7, 7, 7]
    assert torch.equal(together, alone)
    assert len(alone[:, -5:].unique(dim=0)) > 1


def test_rows_that_differ_in_their_image_alone_are_not_one_prompt(
    model: Any, batch: dict[str, Tensor], rows_read: list[int]
) -> None:
    with shared_prompts(model):
        hidden = model.model(**batch, use_cache=False).last_hidden_state
    assert torch.equal(batch["input_ids"][0], batch["input_ids"][6])
    assert rows_read == [4]
    assert not torch.allclose(hidden[0], hidden[6])
    assert torch.equal(hidden[0], hidden[2])


def test_prompts_of_several_images_are_told_apart_by_each_of_them(
    model: Any, processor: Any, rows_read: list[int]
) -> None:
    """As jigsaws of separate pieces are: three prompts, of which two share a text and their first image."""
    red, green, blue = (Image.new("RGB", size, color) for size, color in COLORED)
    pictures = [[red, green], [red, blue], [green], [red, green], [red, blue]]
    chats = [
        processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "image"}] * len(shown) + [{"type": "text", "text": "where"}]}],
            add_generation_prompt=True,
        )
        for shown in pictures
    ]
    inputs = processor(
        text=chats,
        images=pictures,
        padding=True,
        padding_side="left",
        return_tensors="pt",
        return_mm_token_type_ids=True,
    )
    plain = model.model(**inputs, use_cache=False)[0][:, -1]
    with shared_prompts(model):
        shared = model.model(**inputs, use_cache=False)[0][:, -1]
    assert rows_read == [5, 3]
    torch.testing.assert_close(shared, plain, rtol=1e-6, atol=1e-6)


def test_what_is_not_understood_is_read_row_by_row(model: Any, batch: dict[str, Tensor], rows_read: list[int]) -> None:
    words = {"input_ids": torch.full((3, 4), 25), "attention_mask": torch.ones(3, 4, dtype=torch.long)}
    plain = model.model(**words, use_cache=False)[0]
    with shared_prompts(model, 3):
        assert torch.equal(model.model(**words, use_cache=False)[0], plain[:, 2:3])
    with shared_prompts(model):
        model.model(**batch, use_cache=False, output_hidden_states=True)
    assert rows_read == [3, 3, 7]


def test_another_architecture_is_refused() -> None:
    other = torch.nn.Linear(2, 2)
    assert not can_share(other)
    with pytest.raises(ValueError, match="Linear has no body"), shared_prompts(other):
        pass


def test_the_model_is_left_as_it_was(model: Any, batch: dict[str, Tensor], rows_read: list[int]) -> None:
    with pytest.raises(RuntimeError), shared_prompts(model):
        raise RuntimeError
    model.model(**batch, use_cache=False)
    assert rows_read == [7]
    assert "forward" not in vars(model.model)
