"""Images to cut puzzles from, whatever their source: identities first, pixels only when asked for.

Identities are split; photographs of the user's own are looked at for that (`splits.Pictures`), so that no picture is
in two splits. Memory does not grow with the number of images.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from PIL import Image

from holdfast.config.images import Folder, Hub, Images, World
from holdfast.data import folder, hub
from holdfast.data.world import world_scene


class Source(Protocol):
    """Where images come from."""

    skipped: list[str]
    """Files that could not be read, by name."""
    warnings: list[str]
    """On what else was left out, and on what may be wrong with the images."""

    def split(self, counts: dict[str, int]) -> dict[str, list[str]]:
        """Disjoint image identities for every split, at most as many as the puzzles it wants."""

    def load(self, image_id: str) -> Image.Image | None:
        """A square RGB image of the configured size; None, and a skipped name, where it cannot be read."""


def open_source(images: Images, seed: int) -> Source:
    """The source that a config describes; `seed` decides which image goes to which split."""
    if isinstance(images, World):
        return WorldSource(images.size, seed)
    if isinstance(images, Folder):
        return folder.FolderSource(images, seed)
    return hub.HubSource(images, seed)


def input_files(images: Images) -> list[tuple[str, Path]]:
    """The user's files that a source reads, by name, sorted; none for the world and for data sets on the Hub."""
    if isinstance(images, Folder):
        return list(folder.find(images).photographs.items())
    if isinstance(images, Hub):
        return hub.local_files(images.name, images.column)
    return []


class WorldSource:
    """Scenes of the world; every split draws from a random stream of its own."""

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.seed = seed
        self.skipped: list[str] = []
        self.warnings: list[str] = []

    def split(self, counts: dict[str, int]) -> dict[str, list[str]]:
        return {name: [f"world/{name}/{index:06d}" for index in range(count)] for name, count in counts.items()}

    def load(self, image_id: str) -> Image.Image:
        _, name, index = image_id.split("/")
        return world_scene(self.seed, name, int(index), self.size).image
