"""Where images come from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from holdfast.config.base import Config, HubOrPath, LocalPath


class World(Config):
    """Procedural scenes: a sky-to-ground gradient, lit from one side, with one coloured shape in some of its cells."""

    source: Literal["world"] = "world"
    size: PositiveInt = 64
    """Side of a scene in pixels."""


class Folder(Config):
    """Photographs in a directory, read recursively (JPEG, PNG, WebP)."""

    source: Literal["folder"]
    path: LocalPath | None = None
    """The directory; by default three photographs that scikit-learn and matplotlib ship."""
    tile: PositiveInt | None = None
    """Cut every photograph into disjoint square tiles of this side (pixels) and treat each as an image of its own; all
    tiles of a photograph are in one split."""
    size: PositiveInt = 64
    """Side in pixels to which an image is cropped (centre square) and resized before it is cut."""


class Hub(Config):
    """An image column of a Hugging Face data set."""

    source: Literal["hub"]
    name: HubOrPath
    """Data set id on the Hub, or a local directory with such files."""
    revision: str | None = None
    split: str = "train"
    column: str = "image"
    size: PositiveInt = 64
    """Side in pixels to which an image is cropped (centre square) and resized before it is cut."""


Images = Annotated[World | Folder | Hub, Field(discriminator="source")]
