"""A frozen vision tower encodes each image once, however many models of a training show it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from holdfast.models.prompt_sharing import as_encoded, seeing_body_of

LIMIT = 2**28
"""Bytes of image features that are kept; what is beyond goes through the tower every time."""

ImageFeatures = dict[bytes, Tensor]
"""Features (image tokens, hidden) by an image's digest."""


@contextmanager
def cached_image_features(model: Any, cache: ImageFeatures) -> Iterator[None]:
    """Within, features that `cache` holds are not computed again, and others are added to it.

    Nothing happens where the tower, or an adapter in it, may learn, nor in architectures other than Qwen2-VL and
    Qwen2.5-VL. Models that share `cache` must have the same tower.
    """
    body = seeing_body_of(model)
    if body is None or any(parameter.requires_grad for parameter in body.visual.parameters()):
        yield
        return
    hooked = vars(body).get("get_image_features")
    vars(body)["get_image_features"] = partial(_features, body.get_image_features, cache)
    try:
        yield
    finally:
        if hooked is None:
            del vars(body)["get_image_features"]
        else:
            vars(body)["get_image_features"] = hooked


def tower_digest(model: Any) -> str:
    """Which tower a model has: models of one digest may share what was seen."""
    body = seeing_body_of(model)
    if body is None:
        return ""
    found = hashlib.blake2b(digest_size=16)
    for value in body.visual.state_dict().values():
        found.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return found.hexdigest()


def _features(
    plain: Callable[..., Any], cache: ImageFeatures, pixel_values: Tensor, image_grid_thw: Tensor, **others: Any
) -> Any:
    patches = pixel_values.split(image_grid_thw.prod(1).tolist())
    names = [_digest(rows, grid) for rows, grid in zip(patches, image_grid_thw, strict=True)]
    indices = {name: index for index, name in enumerate(names) if name not in cache}
    found: ImageFeatures = {}
    if indices:
        new = list(indices.values())
        # A training may not learn from tensors of inference mode, in which it is measured along the way.
        with torch.inference_mode(False), torch.no_grad():
            encoded = plain(torch.cat([patches[index] for index in new]), image_grid_thw[new], **others).pooler_output
            # Parts of one tensor would keep all of it.
            found = {name: features.clone() for name, features in zip(indices, encoded, strict=True)}
    held = cache | found
    if sum(features.nbytes for features in held.values()) <= LIMIT:
        cache.update(found)
    return as_encoded(held[name] for name in names)


def _digest(rows: Tensor, grid: Tensor) -> bytes:
    """Of an image's patches (patches, values) and their places."""
    given = rows.detach().cpu().contiguous().view(torch.uint8).numpy().data
    return hashlib.blake2b(given, key=str(grid.tolist()).encode(), digest_size=16).digest()
