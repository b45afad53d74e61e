"""How each kind of layer turns its input and its output's gradient into uses of its parameters."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from holdfast.errors import UserError
from holdfast.influence.engine.gradients import selection, wide
from holdfast.influence.engine.parameter import Lookup, Piece, Product, Vector

Arrange = Callable[[Tensor], Tensor]
"""Lays rows (…, width) out as (samples, time, width)."""
Reader = Callable[[Tensor, Tensor, Arrange], dict[str, Piece]]
"""From a layer's input, its output's gradient and an arrangement to a use of each of its parameters."""

IMAGE_SIDE = ("visual", "vision_tower", "vision_model", "multi_modal_projector", "connector", "aligner")
"""Modules whose rows are images' patches and not the text's tokens."""

KINDS: dict[type, type] = {nn.Embedding: Lookup, nn.Linear: Product, nn.Conv2d: Product, nn.Conv3d: Product}
"""What a `weight` is used as; every other one is a vector."""
Patches = nn.Conv2d | nn.Conv3d


class Site(NamedTuple):
    """A module that holds selected parameters."""

    path: str
    module: nn.Module
    read: Reader
    names: dict[str, str]
    """The selected parameters' names by their attribute."""
    kinds: dict[str, type]
    """What sort of use each attribute has."""

    @property
    def sees_images(self) -> bool:
        """Whether its rows are those of images."""
        return _sees_images(self.path)


def _sees_images(path: str) -> bool:
    return any(part in IMAGE_SIDE for part in path.split("."))


def find_sites(model: nn.Module) -> list[Site]:
    """The modules that hold parameters which require a gradient; the model may be without weights, on `meta`.

    Raises:
        UserError: such a parameter belongs to a module of a kind that no rule covers.
    """
    names = {id(value): name for name, value in selection(model).items()}
    sites, unsupported = [], []
    for path, module in model.named_modules():
        own = {attribute: names[id(value)] for attribute, value in _own(module) if id(value) in names}
        if not own:
            continue
        reader = _reader(module)
        if reader is None or not set(own) <= {"weight", "bias"} or _shared_by_images(model, path):
            unsupported += [(name, type(module).__name__) for name in own.values()]
        else:
            kind = next((kind for layer, kind in KINDS.items() if isinstance(module, layer)), Vector)
            kinds = {attribute: kind if attribute == "weight" else Vector for attribute in own}
            sites.append(Site(path, module, reader, own, kinds))
    _refuse(unsupported)
    return sites


def _refuse(unsupported: list[tuple[str, str]]) -> None:
    if not unsupported:
        return
    name, kind = unsupported[0]
    others = f" (and {len(unsupported) - 1} more, up to `{unsupported[-1][0]}`)" if len(unsupported) > 1 else ""
    raise UserError(
        f"influence: `{name}` belongs to a {kind}, whose gradients cannot be told apart by sample{others}; "
        "freeze it or choose other layers"
    )


def _shared_by_images(model: nn.Module, path: str) -> bool:
    """Whether it embeds positions once for all images, so that its gradient is their sum.

    Towers that mask patches, as Idefics', number each image's own.
    """
    if not isinstance(model.get_submodule(path), nn.Embedding) or not _sees_images(path):
        return False
    holder = model.get_submodule(path.rpartition(".")[0])
    return "patch_attention_mask" not in inspect.signature(holder.forward).parameters


def _own(module: nn.Module) -> list[tuple[str, Tensor]]:
    return list(module.named_parameters(recurse=False))


def _reader(module: nn.Module) -> Reader | None:
    """A subclass with a forward pass of its own may do anything with its weights, so it does not count."""
    if type(module).forward is nn.Linear.forward:
        return _linear
    if type(module).forward is nn.Embedding.forward and isinstance(module, nn.Embedding):
        return _embedding(module) if not module.scale_grad_by_freq else None
    if isinstance(module, nn.Embedding) and type(module).__name__.endswith("ScaledWordEmbedding"):
        return _embedding(module) if not module.scale_grad_by_freq else None
    if isinstance(module, Patches) and type(module).forward in (nn.Conv2d.forward, nn.Conv3d.forward):
        return _patches(module) if _cuts_patches(module) else None
    if isinstance(module, nn.LayerNorm) or type(module).__name__.endswith("RMSNorm"):
        scale = dict(_own(module)).get("weight")
        alone = len(inspect.signature(module.forward).parameters) == 1
        return _norm(module, scale) if alone and scale is not None and scale.ndim == 1 else None
    return None


def _linear(a: Tensor, g: Tensor, arrange: Arrange) -> dict[str, Piece]:
    a, g = arrange(a.to(wide(a.dtype))), arrange(g.to(wide(g.dtype)))
    return {"weight": Product(a, g), "bias": Vector(g.sum(1))}


def _embedding(module: nn.Embedding) -> Reader:
    """Rows of a matrix, which some architectures (Gemma) multiply with a number, `embed_scale`."""
    padding, scale = module.padding_idx, getattr(module, "embed_scale", 1.0)

    def read(ids: Tensor, g: Tensor, arrange: Arrange) -> dict[str, Piece]:
        rows = arrange(ids[..., None]).squeeze(-1)
        g = arrange(g.to(wide(g.dtype))) * scale
        if padding is not None:
            g = g.masked_fill((rows == padding)[..., None], 0.0)
        return {"weight": Lookup(rows, g)}

    return read


def _cuts_patches(module: Patches) -> bool:
    unpadded = module.padding == "valid" or set(module.padding) == {0}
    plain = module.groups == 1 and unpadded and set(module.dilation) == {1}
    return plain and tuple(module.kernel_size) == tuple(module.stride)


def _patches(module: Patches) -> Reader:
    kernel = tuple(module.kernel_size)

    def read(a: Tensor, g: Tensor, arrange: Arrange) -> dict[str, Piece]:
        return _linear(_cut(a, kernel), g.flatten(2).mT, arrange)

    return read


def _cut(images: Tensor, kernel: tuple[int, ...]) -> Tensor:
    """Images (images, channels, *size) as rows of patches (images, patches, channels · patch), rests left out."""
    for dimension, size in enumerate(kernel, start=2):
        images = images.unfold(dimension, size, size)
    spatial = len(kernel)
    order = (0, *range(2, 2 + spatial), 1, *range(2 + spatial, 2 + 2 * spatial))
    return images.permute(order).flatten(1 + spatial).flatten(1, spatial)


def _norm(module: nn.Module, scale: Tensor) -> Reader | None:
    """A norm is affine in its scale, so its own forward pass with scale 1, less that with 0, is what the scale meets.

    Only some norms (Gemma's `1 + weight`) give anything with scale 0. None for one that is not affine.
    """
    unit, zero, double = (_scaled(module, value) for value in (1.0, 0.0, 2.0))
    probe = torch.linspace(-1, 2, scale.numel(), dtype=scale.dtype, device=next(unit.parameters()).device)[None]
    offset = bool(zero(probe).any())
    if not torch.allclose(double(probe) + zero(probe), 2 * unit(probe), rtol=1e-2, atol=1e-2):
        return None

    def read(x: Tensor, g: Tensor, arrange: Arrange) -> dict[str, Piece]:
        met = unit(x) - zero(x) if offset else unit(x)
        precision = wide(g.dtype)
        g = g.to(precision)
        return {"weight": Vector(arrange(g * met.to(precision)).sum(1)), "bias": Vector(arrange(g).sum(1))}

    return read


@torch.no_grad()
def _scaled(module: nn.Module, scale: float) -> nn.Module:
    copied = copy.deepcopy(module).requires_grad_(False)
    if next(copied.parameters()).is_meta:
        copied = copied.to_empty(device="cpu")
    for name, value in _own(copied):
        value.fill_(scale if name == "weight" else 0.0)
    return copied
