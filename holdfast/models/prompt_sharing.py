"""Equal prompts go through a model once, however many completions each has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from transformers import (
    Cache,
    DynamicCache,
    LlamaForCausalLM,
    Qwen2_5_VLModel,
    Qwen2ForCausalLM,
    Qwen2VLModel,
    Qwen3ForCausalLM,
)
from transformers.cache_utils import DynamicLayer
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, BaseModelOutputWithPooling

PROMPTS = {"input_ids", "attention_mask"}
IMAGES = {"pixel_values", "image_grid_thw", "mm_encoder_outputs"}
PLACES = {"position_ids", "mm_token_type_ids", "past_key_values", "use_cache"}

SEES = Qwen2VLModel | Qwen2_5_VLModel
READS = LlamaForCausalLM | Qwen2ForCausalLM | Qwen3ForCausalLM

KEEPS = "_can_checkpoint_with_cache"
"""What lets a layer of transformers have a cache under gradient checkpointing; ours may be read twice."""

Inputs = dict[str, Any]


def can_share(model: Any) -> bool:
    """Whether `shared_prompts` understands the architecture, in this version of transformers, as it is checkpointed.

    Before 5.18 Qwen's body took no images that were encoded, and said nothing when it was given some. Checkpoints that
    use reentrant autograd see no gradients but those of a layer's hidden states.
    """
    body = body_of(model)
    if body is None:
        return False
    if isinstance(body, SEES) and "mm_encoder_outputs" not in signature(type(body).forward).parameters:
        return False
    checkpointed: list[Any] = [layer for layer in _layers(body) if layer.gradient_checkpointing]
    return all(
        hasattr(layer, KEEPS) and layer._gradient_checkpointing_func.keywords.get("use_reentrant") is False
        for layer in checkpointed
    )


@contextmanager
def shared_prompts(model: Any, width: int | None = None) -> Iterator[None]:
    """Within, rows that are alike in their first `width` tokens (all, if None) and images share one pass over them.

    With a width, the body's hidden states are those that predict what follows the prompts and no others: (rows,
    tokens - width, hidden). Values and gradients are the plain pass's up to rounding: what follows a prompt attends to
    one copy of its keys and values, whose gradients sum. Where gradients are wanted, no cache is returned. Whatever is
    no batch of prompts padded on the left, each with images if the model sees, is read row by row.

    Raises:
        ValueError: the model is none of those that `can_share`.
    """
    body = body_of(model)
    if body is None:
        raise ValueError(f"{type(model).__name__} has no body that can share prompts")
    ours: dict[str, Any] = {"forward": partial(_forward, body, body.forward, width)}
    if isinstance(body, SEES):
        ours["get_image_features"] = partial(_features, body.get_image_features)
    hooked = {name: vars(body)[name] for name in ours if name in vars(body)}
    vars(body).update(ours)
    for layer in _layers(body):
        setattr(layer, KEEPS, True)
    try:
        yield
    finally:
        for layer in _layers(body):
            delattr(layer, KEEPS)
        for name in ours:
            del vars(body)[name]
        vars(body).update(hooked)


def body_of(model: Any) -> Any:
    """The part that reads what it is asked, of a Qwen2-VL, a Qwen2.5-VL or a text model; None of any other."""
    for module in model.modules():
        if isinstance(module, SEES):
            return module
        if isinstance(module, READS):
            return module.model
    return None


def seeing_body_of(model: Any) -> Any:
    """The part that reads text and images, of a Qwen2-VL or a Qwen2.5-VL; None of any other."""
    body = body_of(model)
    return body if isinstance(body, SEES) else None


def _layers(body: Any) -> list[GradientCheckpointingLayer]:
    """Of the language model."""
    language = body.language_model if isinstance(body, SEES) else body
    return list(language.layers)


def _features(plain: Callable[..., Any], pixel_values: Tensor, image_grid_thw: Tensor, **others: Any) -> Any:
    """What the vision tower makes of every image; those that are alike are read once."""
    patches = pixel_values.split(image_grid_thw.prod(1).tolist())
    first, of_image = _distinct(image_grid_thw, [[rows] for rows in patches])
    seen = plain(torch.cat([patches[image] for image in first]), image_grid_thw[first], **others).pooler_output
    return as_encoded(seen[image] for image in of_image)


def _forward(body: Any, plain: Callable[..., Any], width: int | None, **inputs: Any) -> Any:
    given = {name: value for name, value in inputs.items() if value is not None and name != "return_dict"}
    if _understood(given, isinstance(body, SEES)):
        return _shared(body, plain, width, given)
    read = plain(**inputs)
    if width is not None:
        read.last_hidden_state = read.last_hidden_state[:, width - 1 : -1]
    return read


def _shared(body: Any, plain: Callable[..., Any], width: int | None, given: Inputs) -> BaseModelOutputWithPast:
    ids, mask = given["input_ids"], given["attention_mask"]
    end = width or ids.shape[1]
    images = _images(body, given)
    owned = _owned((ids == body.config.image_token_id).sum(1), images) if images else [[] for _ in ids]
    texts = torch.cat([ids[:, :end], mask[:, :end]], 1)
    first, of_row = _distinct(texts, [[images[image] for image in mine] for mine in owned])
    rows = torch.tensor(of_row, device=ids.device)
    shown = [image for row in first for image in owned[row]]
    before, after = _positions(body, given, (first, rows, shown), end)
    keeps = given.get("use_cache", True) and not torch.is_grad_enabled()
    cache = given.get("past_key_values", DynamicCache(config=body.config.get_text_config())) if keeps else _prompts()
    seen = {"mm_encoder_outputs": {"image": as_encoded(images[image] for image in shown)}} if images else {}
    prompts = {"input_ids": ids[first, :end], "attention_mask": mask[first, :end], "position_ids": before, **seen}
    hidden = plain(**prompts, past_key_values=cache, use_cache=keeps).last_hidden_state.index_select(0, rows)
    if keeps:
        cache.batch_select_indices(rows)
    if width is not None:
        hidden = hidden[:, -1:]
    if end < ids.shape[1] - 1:
        places = None if after is None else after[..., :-1]
        following = {"input_ids": ids[:, end:-1], "attention_mask": mask[:, :-1], "position_ids": places}
        read = cache if keeps else _followed(cache, rows)
        rest = plain(**following, past_key_values=read, use_cache=keeps).last_hidden_state
        hidden = torch.cat([hidden, rest], 1)
    return BaseModelOutputWithPast(last_hidden_state=hidden, past_key_values=cache if keeps else None)


class _Prompt(DynamicLayer):
    """Of one layer, keys and values of the prompts: the first pass's, however often a checkpoint is recomputed."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states, value_states
        return key_states, value_states


class _Followed(DynamicLayer):
    """Of one layer, those of each row's prompt, before those of what follows it; a copy for each row is not kept."""

    def __init__(self, keys: Tensor, values: Tensor, rows: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys: Tensor = keys
        self.values: Tensor = values
        self.rows = rows

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        pairs = ((self.keys, key_states), (self.values, value_states))
        keys, values = (torch.cat([old[self.rows, ...], new], -2) for old, new in pairs)
        return keys, values


def _prompts() -> Cache:
    return Cache(layer_class_to_replicate=_Prompt)


def _followed(prompts: Any, rows: Tensor) -> Cache:
    return Cache(layers=[_Followed(layer.keys, layer.values, rows) for layer in prompts.layers])


def _images(body: Any, given: Inputs) -> Sequence[Tensor]:
    """All images of a batch, encoded."""
    if not isinstance(body, SEES):
        return ()
    if "pixel_values" in given:
        return tuple(body.get_image_features(given["pixel_values"], given["image_grid_thw"]).pooler_output)
    return tuple(given["mm_encoder_outputs"]["image"].pooler_output)


def as_encoded(images: Iterable[Tensor]) -> BaseModelOutputWithPooling:
    """Images as the body takes them, a tensor each, whatever the class declares."""
    each: Any = tuple(images)
    return BaseModelOutputWithPooling(pooler_output=each)


def _understood(given: Inputs, sees: bool) -> bool:
    """Whether these are whole prompts, with images if the model sees, nothing of them read before."""
    if not PROMPTS <= given.keys() <= PROMPTS | IMAGES | PLACES:
        return False
    cache, mask, encoded = (given.get(name) for name in ("past_key_values", "attention_mask", "mm_encoder_outputs"))
    fresh = cache is None or (type(cache) is DynamicCache and cache.get_seq_length() == 0)
    whole = fresh and isinstance(mask, Tensor) and mask.shape == given["input_ids"].shape
    if not sees:
        return whole
    seen = list(encoded) == ["image"] if encoded else {"pixel_values", "image_grid_thw"} <= given.keys()
    placed = "position_ids" in given or {"mm_token_type_ids", "image_grid_thw"} <= given.keys()
    return whole and seen and placed


def _owned(tokens: Tensor, images: Iterable[Tensor]) -> list[list[int]]:
    """Indices of every row's images, from how many image tokens each row has and how many each image fills."""
    filled = torch.tensor([len(image) for image in images]).cumsum(0)
    owners = torch.searchsorted(tokens.cpu().cumsum(0), filled)
    owned: list[list[int]] = [[] for _ in tokens]
    for image, row in enumerate(owners.tolist()):
        owned[row].append(image)
    return owned


def _distinct(texts: Tensor, images: Sequence[Sequence[Tensor]]) -> tuple[list[int], list[int]]:
    """Where each different pair of a text and its images is first, and for every pair which of these it is.

    Images are compared where they lie: copies of a large batch from a GPU would cost more than the comparisons.
    """
    known: dict[bytes, list[tuple[int, Sequence[Tensor]]]] = {}
    first: list[int] = []
    of_pair: list[int] = []
    for place, (text, shown) in enumerate(zip(texts.cpu().numpy(), images, strict=True)):
        alike = known.setdefault(text.tobytes(), [])
        found = next((number for number, others in alike if _equal(shown, others)), len(first))
        if found == len(first):
            alike.append((found, shown))
            first.append(place)
        of_pair.append(found)
    return first, of_pair


def _equal(some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    return len(some) == len(others) and all(a is b or torch.equal(a, b) for a, b in zip(some, others, strict=True))


def _positions(
    body: Any, given: Inputs, prompts: tuple[list[int], Tensor, list[int]], width: int
) -> tuple[Tensor | None, Tensor | None]:
    """Positions (…, prompts, width) of the prompts and (…, rows, tokens) of what follows them; text has a default."""
    first, rows, shown = prompts
    if "position_ids" in given:
        places = given["position_ids"].expand(*given["position_ids"].shape[:-2], len(rows), -1)
        return places[..., first, :width], places[..., width:]
    if not isinstance(body, SEES):
        return None, None
    mask = given["attention_mask"]
    before, shift = body.get_rope_index(
        given["input_ids"][first, :width],
        given["mm_token_type_ids"][first, :width],
        image_grid_thw=given["image_grid_thw"][shown],
        attention_mask=mask[first, :width],
    )
    after = (mask.cumsum(1) - 1)[:, width:] + shift[rows]
    return before, after.expand(3, -1, -1)
