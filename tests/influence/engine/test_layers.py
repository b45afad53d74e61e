"""Every reduction and every kind of layer against gradients that are spelled out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm

from holdfast.errors import UserError
from holdfast.influence.engine import algebra
from holdfast.influence.engine.capture import Layout
from holdfast.influence.engine.layers import find_sites
from holdfast.influence.engine.parameter import Lookup, ParameterGradients, Product, Vector
from holdfast.models.encode import TeacherForced

SIZES = st.tuples(st.integers(1, 4), st.integers(0, 6), st.integers(1, 5), st.integers(1, 7), st.integers(0, 3))
"""Samples, time, inputs, outputs, targets."""


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def expected(gradients: Tensor, targets: Tensor) -> algebra.Reduced:
    flat = gradients.flatten(1)
    return algebra.Reduced(flat.square().sum(1), flat @ targets.mT)


def agree(found: algebra.Reduced, wanted: algebra.Reduced) -> bool:
    pairs = zip(found, wanted, strict=True)
    return all(left.shape == right.shape and torch.allclose(left, right, rtol=1e-10) for left, right in pairs)


@settings(deadline=None, max_examples=60)
@given(SIZES, st.integers(1, 40))
def test_making_gradients_and_pairing_tokens_give_the_same(sizes: tuple[int, ...], chunk: int) -> None:
    samples, time, inputs, outputs, count = sizes
    a, g = drawn(samples, time, inputs), drawn(samples, time, outputs, seed=1)
    targets = drawn(count, outputs * inputs, seed=2)
    wanted = expected(torch.einsum("bto,bti->boi", g, a), targets)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(algebra, "CHUNK", chunk)
        patch.setattr(algebra, "FEWEST_ROWS", 1)
        assert agree(algebra.materialised(a, g, targets), wanted)
    assert agree(algebra.Reduced(algebra.paired_norm2(a, g), algebra.contracted(a, g, targets)), wanted)
    assert agree(algebra.product(a, g, targets), wanted)


@settings(deadline=None, max_examples=60)
@given(SIZES)
def test_a_tied_matrix_is_the_sum_of_its_sides(sizes: tuple[int, ...]) -> None:
    samples, time, width, vocabulary, count = sizes
    a, g = drawn(samples, time, width), drawn(samples, time, vocabulary, seed=1)
    ids = torch.randint(vocabulary, (samples, time + 2), generator=torch.Generator().manual_seed(3))
    looked = drawn(samples, time + 2, width, seed=4)
    targets = drawn(count, vocabulary * width, seed=2)
    gradients = torch.einsum("bto,bti->boi", g, a)
    for sample in range(samples):
        gradients[sample].index_add_(0, ids[sample], looked[sample])
    parameter = ParameterGradients(targets, width)
    lookup, product = parameter.expect(Lookup, ids), parameter.expect(Product)
    parameter.add(product, Product(a, g))
    parameter.add(lookup, Lookup(ids, looked))
    norm2 = sum((part.norm2 for part in parameter.reduced), torch.zeros(samples))
    dots = sum((part.dots for part in parameter.reduced), torch.zeros(samples, count))
    assert agree(algebra.Reduced(norm2, dots), expected(gradients, targets))


@settings(deadline=None, max_examples=40)
@given(SIZES)
def test_uses_are_summed_in_any_order_of_arrival(sizes: tuple[int, ...]) -> None:
    samples, time, inputs, outputs, count = sizes
    uses = [
        Product(drawn(samples, time + n, inputs, seed=n), drawn(samples, time + n, outputs, seed=9)) for n in (0, 2)
    ]
    vectors = [Vector(drawn(samples, inputs, seed=n)) for n in (5, 6)]
    matrix, bias = (
        ParameterGradients(drawn(count, outputs * inputs), inputs),
        ParameterGradients(drawn(count, inputs), inputs),
    )
    slots = [matrix.expect(Product) for _ in uses], [bias.expect(Vector) for _ in vectors]
    for index in (1, 0):
        matrix.add(slots[0][index], uses[index])
        bias.add(slots[1][index], vectors[index])
    total = sum(torch.einsum("bto,bti->boi", use.g, use.a) for use in uses)
    assert agree(matrix.reduced[0], expected(total, matrix.targets))
    assert agree(bias.reduced[0], expected(vectors[0].gradient + vectors[1].gradient, bias.targets))


def test_a_use_that_gets_no_gradient_counts_as_zero() -> None:
    ids = torch.tensor([[1, 2]])
    parameter = ParameterGradients(drawn(1, 12), 3)
    parameter.expect(Lookup, ids)
    slot = parameter.expect(Product)
    parameter.expect(Product)
    parameter.add(slot, Product(drawn(1, 2, 3), drawn(1, 2, 4)))
    parameter.close()
    alone = algebra.product(drawn(1, 2, 3), drawn(1, 2, 4), drawn(1, 12))
    assert torch.allclose(sum(part.norm2 for part in parameter.reduced), alone.norm2)


@pytest.mark.parametrize(
    ("time", "targets", "pairs"), [(32, 0, True), (16, 1, True), (1024, 1, False), (512, 16, False)]
)
def test_short_samples_are_paired_and_long_ones_made(time: int, targets: int, pairs: bool) -> None:
    assert algebra.cheaper_by_pairs(time, (1376, 512), targets) is pairs


def test_a_large_vocabulary_is_never_made_for_few_tokens() -> None:
    assert algebra.cheaper_by_pairs(64, (152_000, 2048), 1)


def batch_with(images: tuple[int, ...], grids: list[list[int]] | None = None) -> TeacherForced:
    inputs = {"input_ids": torch.zeros(len(images), 5, dtype=torch.long)}
    if grids is not None:
        inputs["image_grid_thw"] = torch.tensor(grids)
    return TeacherForced(inputs, torch.zeros(0), torch.zeros(0), images)


class Eyes(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.visual = layer


def rows_of(samples: tuple[int, ...], grids: list[list[int]] | None, rows: Tensor) -> Tensor:
    [site] = find_sites(Eyes(nn.Linear(rows.shape[-1], 1)))
    return Layout(batch_with(samples, grids)).of(site, rows)


def test_packed_rows_go_to_their_samples() -> None:
    rows = torch.arange(1.0, 13.0)[:, None]
    arranged = rows_of((1, 0, 2), [[1, 4, 4], [1, 2, 4], [1, 4, 6]], rows).squeeze(-1)
    assert arranged.tolist() == [[1, 2, 3, 4, 0, 0, 0, 0], [0] * 8, [5, 6, 7, 8, 9, 10, 11, 12]]


def test_equal_shares_are_not_copied() -> None:
    rows = torch.randn(8, 3)
    assert rows_of((1, 1), [[1, 4, 4], [1, 4, 4]], rows).data_ptr() == rows.data_ptr()


def test_images_with_an_axis_of_their_own_go_to_their_samples() -> None:
    rows = torch.arange(6.0).view(3, 2, 1)
    assert rows_of((2, 1), None, rows).squeeze(-1).tolist() == [[0, 1, 2, 3], [4, 5, 0, 0]]


@pytest.mark.parametrize("rows", [torch.zeros(7, 1), torch.zeros(4, 6, 1)])
def test_rows_out_of_proportion_are_refused(rows: Tensor) -> None:
    with pytest.raises(UserError, match="visual sees"):
        rows_of((1, 1), [[1, 4, 4], [1, 2, 4]], rows)


def test_videos_are_refused_by_the_module_that_sees_them() -> None:
    [site] = find_sites(Eyes(nn.Linear(1, 1)))
    given = batch_with((1, 1), [[1, 4, 4], [1, 4, 4]])
    layout = Layout(given._replace(inputs={**given.inputs, "pixel_values_videos": torch.zeros(8, 1)}))
    with pytest.raises(UserError, match=r"visual sees videos.*freeze the vision tower"):
        layout.of(site, torch.zeros(8, 1))
    assert layout.of(site._replace(path="lm_head"), torch.zeros(2, 5, 1)).shape == (2, 5, 1)


LAYERS = [
    (nn.Linear(4, 3), (2, 5, 4)),
    (nn.Linear(4, 3, bias=False), (2, 2, 5, 4)),
    (nn.LayerNorm(4), (2, 5, 4)),
    (nn.LayerNorm(4, bias=False), (2, 5, 4)),
    (nn.RMSNorm(4), (2, 3, 5, 4)),
    (GemmaRMSNorm(4), (2, 5, 4)),
    (nn.Conv2d(3, 4, kernel_size=2, stride=2), (2, 3, 6, 5)),
    (nn.Conv3d(3, 4, kernel_size=(2, 3, 2), stride=(2, 3, 2), bias=False), (2, 3, 2, 6, 4)),
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=lambda value: type(value).__name__)
def test_a_layer_reads_its_gradients(layer: nn.Module, shape: tuple[int, ...]) -> None:
    layer, x = layer.double(), drawn(*shape)
    with torch.no_grad():
        for value in layer.parameters():
            value += 0.3 * torch.randn_like(value)
    output = layer(x)
    g = drawn(*output.shape, seed=1)
    [site] = find_sites(Eyes(layer))
    layout = Layout(batch_with((1, 1)))
    pieces = site.read(x, g, lambda rows: layout.of(site, rows))
    for attribute in site.names:
        value = getattr(layer, attribute)
        for sample in range(2):
            single = torch.autograd.grad(output[sample], value, g[sample], retain_graph=True)[0]
            assert torch.allclose(_spelled_out(pieces[attribute], sample), single.flatten(), rtol=1e-6, atol=1e-6)


def _spelled_out(piece: Any, sample: int) -> Tensor:
    return (piece.g[sample].mT @ piece.a[sample]).flatten() if isinstance(piece, Product) else piece.gradient[sample]


class Doubled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(2 * x)


class GatedRMSNorm(nn.RMSNorm):
    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        return super().forward(x if gate is None else x * gate.sigmoid())


class SquaredRMSNorm(nn.RMSNorm):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.weight


UNSUPPORTED = [
    GatedRMSNorm(4),
    SquaredRMSNorm(4),
    Doubled(2, 2),
    nn.Conv2d(1, 1, kernel_size=3, stride=1),
    nn.Conv2d(2, 2, kernel_size=2, stride=2, groups=2),
    nn.Conv2d(1, 1, kernel_size=2, stride=2, padding=1),
    nn.Embedding(3, 2, scale_grad_by_freq=True),
    nn.LayerNorm((2, 2)),
    nn.BatchNorm1d(2),
    nn.Bilinear(2, 2, 2),
]


@pytest.mark.parametrize("layer", UNSUPPORTED, ids=lambda layer: type(layer).__name__)
def test_layers_without_a_rule_are_refused_and_may_be_frozen(layer: nn.Module) -> None:
    with pytest.raises(UserError, match=f"`visual.weight` belongs to a {type(layer).__name__}"):
        find_sites(Eyes(layer))
    assert not find_sites(Eyes(layer.requires_grad_(False)))
