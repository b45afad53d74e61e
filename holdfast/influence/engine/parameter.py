"""One parameter's gradients in one pass: all its uses are summed before anything is squared."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from holdfast.influence.engine import algebra
from holdfast.influence.engine.algebra import Reduced


class Product(NamedTuple):
    """A use as a matrix: the gradient is gᵀa."""

    a: Tensor
    g: Tensor


class Lookup(NamedTuple):
    """A use as an embedding: row `ids` of the gradient takes g."""

    ids: Tensor
    g: Tensor


class Vector(NamedTuple):
    """A use as a bias or a scale: the gradient (samples, numel) itself."""

    gradient: Tensor


Piece = Product | Lookup | Vector


MOVED_AT_ONCE = 1 << 29
"""Numbers of targets that are moved to the samples' device at a time, where they lie elsewhere."""


class ParameterGradients:
    """The uses of one parameter with its targets (targets, numel).

    Uses are announced in the forward pass and come in the backward pass, in any order. A tied embedding's two sides
    share the cross term 2⟨gᵀa, E⟩ with E the embedding's part; only the rows of gᵀa that E touches are ever made.
    """

    def __init__(self, targets: Tensor, width: int) -> None:
        self.targets = targets
        self.width = width
        self.uses = 0
        self.waiting: dict[type, int] = {Product: 0, Lookup: 0, Vector: 0}
        self.pieces: dict[int, Piece] = {}
        self.ids: dict[int, Tensor] = {}
        self.reduced: list[Reduced] = []
        self.rows: Tensor | None = None
        self.scattered: Tensor | None = None

    def expect(self, kind: type, ids: Tensor | None = None) -> int:
        """Announce a use; an embedding says which rows. Returns the number under which `add` shall bring it."""
        self.uses += 1
        slot = self.uses
        self.waiting[kind] += 1
        if ids is not None:
            self.ids[slot] = ids
        return slot

    def add(self, slot: int, piece: Piece) -> None:
        """Take a use; the last of its kind is reduced with the others."""
        kind = type(piece)
        self.pieces[slot] = piece
        self.waiting[kind] -= 1
        if not self.waiting[kind]:
            self._reduce(kind)

    def close(self) -> None:
        """Whatever has not come by the end of the backward pass has no gradient."""
        for slot, ids in self.ids.items():
            if slot not in self.pieces:
                nothing = torch.zeros(*ids.shape, self.width, dtype=self.targets.dtype, device=ids.device)
                self.add(slot, Lookup(ids, nothing))
        for kind, missing in self.waiting.items():
            if missing and any(type(piece) is kind for piece in self.pieces.values()):
                self._reduce(kind)

    def _reduce(self, kind: type) -> None:
        uses = [self.pieces[slot] for slot in sorted(self.pieces) if type(self.pieces[slot]) is kind]
        self.pieces = {slot: piece for slot, piece in self.pieces.items() if type(piece) is not kind}
        if kind is Vector:
            total = torch.stack([use[0] for use in uses]).sum(0) if len(uses) > 1 else uses[0][0]
            self._against(total.device, partial(algebra.vector, total))
            return
        first, g = (torch.cat(parts, 1) if len(parts) > 1 else parts[0] for parts in zip(*uses, strict=True))
        if kind is Product:
            self._against(g.device, partial(algebra.product, first, g))
            if self.ids:
                self.rows = algebra.looked_up(first, g, torch.cat([self.ids[slot] for slot in sorted(self.ids)], 1))
        else:
            self._against(g.device, partial(algebra.lookup, first, g))
            self.scattered = g
        self._cross()

    def _against(self, where: torch.device, reduce: Callable[[Tensor], Reduced]) -> None:
        """Reduce with all targets, some at a time where they lie on another device."""
        count, numel = self.targets.shape
        at_once = MOVED_AT_ONCE // numel if self._elsewhere(where) else count
        first, *others = [reduce(part.to(where)) for part in self.targets.split(max(1, at_once))]
        self.reduced.append(Reduced(first.norm2, torch.cat([first.dots, *(other.dots for other in others)], 1)))

    def _elsewhere(self, where: torch.device) -> bool:
        return self.targets.device != where

    def _cross(self) -> None:
        if self.rows is None or self.scattered is None:
            return
        cross = (self.rows * self.scattered).sum(2).double().sum(1)
        dots = cross.new_zeros(len(cross), len(self.targets))
        self.reduced.append(Reduced(2 * cross, dots))
        self.rows = self.scattered = None
