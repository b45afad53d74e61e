"""Hooks for one forward and one backward pass: they hand every layer's inputs and output gradients to the
parameters that it uses.

Parameters are frozen meanwhile, so that autograd computes gradients of activations alone and no W.grad.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn

from holdfast.errors import UserError
from holdfast.influence.engine.layers import Site
from holdfast.influence.engine.parameter import Lookup, ParameterGradients
from holdfast.models.encode import TeacherForced


class Layout:
    """Which sample each row of a module's input belongs to.

    Text comes as (samples, …). Images come as (images, …) or packed, image after image, as rows in proportion to each
    image's patches; whatever reorders them stays inside an image. A sample has any number of images.
    """

    def __init__(self, batch: TeacherForced) -> None:
        self.samples, self.width = batch.inputs["input_ids"].shape
        self.images = batch.images
        grids = batch.inputs.get("image_grid_thw")
        self.patches: list[int] | None = None if grids is None else grids.prod(-1).tolist()
        self.indices: dict[tuple[int, ...], Tensor] = {}
        self.videos = any("video" in name and len(value) for name, value in batch.inputs.items())

    def of(self, site: Site, rows: Tensor) -> Tensor:
        """Rows (…, width) as (samples, time, width), zeros where a sample has fewer than others.

        Raises:
            UserError: the module mixes samples or sees videos, or its rows cannot be told apart.
        """
        if self.videos and site.sees_images:
            raise UserError(
                f"influence: {site.path} sees videos, whose rows no rule assigns to samples; freeze the vision tower "
                "or leave out samples with videos"
            )
        arranged = self._images(rows) if site.sees_images else self._text(rows)
        if arranged is None:
            raise UserError(
                f"influence: {site.path} sees {tuple(rows.shape[:-1])} rows for {self.samples} samples with "
                f"{sum(self.images)} images, so they cannot be told apart; freeze it or choose other layers"
            )
        return arranged

    def _text(self, rows: Tensor) -> Tensor | None:
        if rows.ndim > 2 and len(rows) == self.samples:
            return rows.flatten(1, -2)
        count = rows.shape[:-1].numel()
        if rows.ndim == 2 and count == self.samples * self.width:
            return rows.view(self.samples, self.width, -1)
        return rows.reshape(1, count, -1) if self.samples == 1 else None

    def _images(self, rows: Tensor) -> Tensor | None:
        count = rows.shape[:-1].numel()
        shares = self._shares(rows, count)
        if shares is None:
            return None
        ends = list(accumulate(self.images, initial=0))
        sizes = tuple(sum(shares[first:last]) for first, last in pairwise(ends))
        flat = rows.reshape(count, -1)
        if len(set(sizes)) == 1:
            return flat.view(self.samples, sizes[0], -1)
        if sizes not in self.indices:
            self.indices[sizes] = _row_indices(sizes).to(rows.device)
        return torch.cat([flat, flat.new_zeros(1, flat.shape[1])])[self.indices[sizes]]

    def _shares(self, rows: Tensor, count: int) -> list[int] | None:
        """Rows of each image."""
        images = sum(self.images)
        if rows.ndim > 2 and len(rows) == images:
            return [count // images] * images
        if self.patches is None or len(self.patches) != images or (rows.ndim > 2 and rows.shape[1:-1].numel() > 1):
            return None
        total = sum(self.patches)
        if any(count * patches % total for patches in self.patches):
            return None
        return [count * patches // total for patches in self.patches]


def _row_indices(sizes: Sequence[int]) -> Tensor:
    """Where each sample's rows lie among packed ones (samples, longest); the row after the last stands for none."""
    total = sum(sizes)
    indices = torch.full((len(sizes), max(sizes)), total)
    for sample, (size, last) in enumerate(zip(sizes, accumulate(sizes), strict=True)):
        indices[sample, :size] = torch.arange(last - size, last)
    return indices


@contextmanager
def capturing(
    model: nn.Module, sites: Sequence[Site], gradients: Mapping[str, ParameterGradients], batch: TeacherForced
) -> Iterator[None]:
    """Within, a forward and a backward pass fill the gradients; afterwards, hooks are gone and flags as before."""
    layout = Layout(batch)
    flags = [(value, value.requires_grad) for value in model.parameters()]
    handles = []
    try:
        for value, _ in flags:
            value.requires_grad_(False)
        for site in sites:
            hook = partial(_announce, site, gradients, layout)
            handles.append(site.module.register_forward_hook(hook, with_kwargs=True))
        yield
        for gradient in gradients.values():
            gradient.close()
    finally:
        for handle in handles:
            handle.remove()
        for value, flag in flags:
            value.requires_grad_(flag)


class _Call:
    """One call of a site's module, between its forward and its backward pass."""

    def __init__(self, site: Site, gradients: Mapping[str, ParameterGradients], layout: Layout, a: Tensor) -> None:
        self.site = site
        self.gradients = gradients
        self.layout = layout
        self.a: Tensor | None = a
        self.version = _version(a)
        ids = layout.of(site, a[..., None]).squeeze(-1) if Lookup in site.kinds.values() else None
        self.slots = {
            attribute: gradients[name].expect(site.kinds[attribute], ids) for attribute, name in site.names.items()
        }

    @torch.no_grad()
    def consume(self, g: Tensor) -> None:
        """Hand over what the call contributed and let go of its input."""
        a, self.a = self.a, None
        if a is None or _version(a) != self.version:
            raise UserError(
                f"influence: the input of {self.site.path} was changed in place or its gradient came twice, so its "
                "gradients cannot be told apart by sample; freeze it or choose other layers"
            )
        pieces = self.site.read(a, g, partial(self.layout.of, self.site))
        for attribute, slot in self.slots.items():
            self.gradients[self.site.names[attribute]].add(slot, pieces[attribute])


def _version(value: Tensor) -> int:
    """How often it was changed in place; autograd would check that, were the weight not frozen."""
    return 0 if value.is_inference() else value._version


def _announce(
    site: Site, gradients: Mapping[str, ParameterGradients], layout: Layout, module: nn.Module, *passed: Any
) -> Tensor | None:
    arguments, named, output = passed
    if not torch.is_grad_enabled():
        return None
    given = arguments[0] if arguments else next(iter(named.values()))
    call = _Call(site, gradients, layout, given.detach())
    if not output.requires_grad:
        return _source(output, call)
    output.register_hook(call.consume)
    return None


def _source(output: Tensor, call: _Call) -> Tensor:
    """Nothing below requires a gradient, so let it begin here; what follows gets a copy that it may change in place."""
    output.requires_grad_()
    output.register_post_accumulate_grad_hook(_forget)
    copied = output.clone()
    copied.register_hook(call.consume)
    return copied


def _forget(leaf: Tensor) -> None:
    leaf.grad = None
