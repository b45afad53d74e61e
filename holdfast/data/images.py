"""Images to cut puzzles from, whatever their source: identities first, pixels only when asked for.

A source knows its images' identities without decoding them, so that splits are cut before anything is read and memory
does not grow with the number of images.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

import numpy as np
from PIL import Image, ImageOps

from holdfast.config import Folder, Hub, Images, World
from holdfast.data.world import generator, world_scene
from holdfast.errors import UserError

UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
"""What Pillow raises for files that are damaged or no images."""


class Source(Protocol):
    """Where images come from."""

    skipped: list[str]
    """Files that could not be read, by name."""

    def split(self, counts: dict[str, int]) -> dict[str, list[str]]:
        """Disjoint image identities for every split, at most as many as the puzzles it wants."""

    def load(self, image_id: str) -> Image.Image | None:
        """A square RGB image of the configured size; None, and a skipped name, where it cannot be read."""


def open_source(images: Images, seed: int) -> Source:
    """The source that a config describes; `seed` decides which image goes to which split."""
    if isinstance(images, World):
        return WorldSource(images.size, seed)
    if isinstance(images, Folder):
        from holdfast.data.folder import FolderSource

        return FolderSource(images, seed)
    from holdfast.data.hub import HubSource

    return HubSource(images, seed)


def input_files(images: Images) -> list[tuple[str, Path]]:
    """The user's files that a source reads, by name, sorted; none for the world and for data sets on the Hub."""
    if isinstance(images, Folder):
        from holdfast.data.folder import directory, photographs

        root, paths = directory(images), photographs(images)
    elif isinstance(images, Hub) and Path(images.name).is_dir():
        root = Path(images.name)
        paths = sorted(path for path in root.rglob("*") if path.is_file())
    else:
        return []
    return [(path.relative_to(root).as_posix(), path) for path in paths]


class WorldSource:
    """Scenes of the world; every split draws from a random stream of its own."""

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.seed = seed
        self.skipped: list[str] = []

    def split(self, counts: dict[str, int]) -> dict[str, list[str]]:
        return {name: [f"world/{name}/{index:06d}" for index in range(count)] for name, count in counts.items()}

    def load(self, image_id: str) -> Image.Image:
        _, name, index = image_id.split("/")
        return world_scene(self.seed, name, int(index), self.size).image


class Share(NamedTuple):
    """A split, how many puzzles it wants, and how many images it gets."""

    name: str
    wanted: int
    images: int


def deal(images: int, counts: dict[str, int], seed: int) -> dict[str, list[int]]:
    """Deal shuffled image numbers to the splits in proportion to the puzzles they want, at least one to each."""
    if images < len(counts):
        raise UserError(
            f"images: {images} readable image(s) cannot fill {len(counts)} disjoint splits; "
            f"add images, or cut photographs into several with images.tile."
        )
    order = generator("splits", seed).permutation(images).tolist()
    dealt = {}
    start = 0
    for share in _shares(images, counts):
        dealt[share.name] = order[start : start + min(share.images, share.wanted)]
        start += share.images
    return dealt


def _shares(images: int, counts: dict[str, int]) -> list[Share]:
    """Largest splits get what the smaller ones, at least one each and rounded up, leave."""
    total = sum(counts.values())
    shares = []
    left = images
    for position, (name, wanted) in enumerate(sorted(counts.items(), key=lambda item: item[1])):
        others = len(counts) - position - 1
        fair = -(-images * wanted // total)
        given = left if others == 0 else max(1, min(fair, left - others))
        shares.append(Share(name, wanted, given))
        left -= given
    return shares


def rgb(file: BinaryIO | Path, smallest: int | None = None) -> Image.Image:
    """A file as an upright RGB image; transparency becomes white.

    With `smallest`, a JPEG may be decoded at a fraction of its size, its shorter side at least that many pixels.
    """
    with Image.open(file) as image:
        if smallest is not None:
            image.draft("RGB", (smallest, smallest))
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
    upright: Image.Image = image
    if upright.mode.startswith("I;16"):
        upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    if "A" in upright.getbands() or "transparency" in upright.info:
        layer = upright.convert("RGBA")
        upright = Image.new("RGBA", layer.size, "white")
        upright.alpha_composite(layer)
    return upright if upright.mode == "RGB" else upright.convert("RGB")


def square(image: Image.Image, size: int) -> Image.Image:
    """The centre square, resized to `size` pixels a side."""
    return ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
