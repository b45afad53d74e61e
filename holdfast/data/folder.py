"""Photographs in a directory, whole or cut into tiles."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from PIL import ExifTags, Image

from holdfast.config import Folder
from holdfast.data.images import UNREADABLE, deal, rgb, square
from holdfast.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF")


def directory(images: Folder) -> Path:
    """The configured directory, or the photographs that scikit-learn ships."""
    if images.path is not None:
        return images.path
    package = find_spec("sklearn")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent / "datasets" / "images"


def photographs(images: Folder) -> list[Path]:
    """All files with a photograph's suffix below the directory, sorted by name."""
    root = directory(images)
    if not root.is_dir():
        raise UserError(f"images.path: {root} is no directory; set it to a directory with photographs.")
    found = sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise UserError(f"images.path: {root} holds no JPEG, PNG or WebP file; set it to a directory with photographs.")
    return found


class FolderSource:
    """Identities are relative paths, with `@x,y` for the tile at that corner."""

    def __init__(self, images: Folder, seed: int) -> None:
        self.images = images
        self.seed = seed
        self.root = directory(images)
        self.skipped: list[str] = []
        self._decoded: tuple[str, Image.Image] | None = None

    def split(self, counts: dict[str, int]) -> dict[str, list[str]]:
        paths = photographs(self.images)
        identities = [identity for path in paths for identity in self._identities(path)]
        if not identities:
            self._refuse(len(paths))
        dealt = deal(len(identities), counts, self.seed)
        chosen = {name: [identities[number] for number in numbers] for name, numbers in dealt.items()}
        return {name: _by_photograph(tiles) for name, tiles in chosen.items()} if self.images.tile else chosen

    def load(self, image_id: str) -> Image.Image | None:
        tile, size = self.images.tile, self.images.size
        name, _, corner = image_id.rpartition("@") if tile else (image_id, "", "")
        if name in self.skipped:
            return None
        try:
            if tile is None:
                return square(rgb(self.root / name, size), size)
            x, y = (int(side) for side in corner.split(","))
            return square(self._photograph(name).crop((x, y, x + tile, y + tile)), size)
        except UNREADABLE:
            self.skipped.append(name)
            return None

    def _identities(self, path: Path) -> list[str]:
        """What a file holds, told from its first bytes."""
        name = path.relative_to(self.root).as_posix()
        tile = self.images.tile
        try:
            if tile is None:
                _check_signature(path)
                return [name]
            with Image.open(path) as image:
                width, height = _upright_size(image)
        except UNREADABLE:
            self.skipped.append(name)
            return []
        return [f"{name}@{x},{y}" for y in range(0, height - tile + 1, tile) for x in range(0, width - tile + 1, tile)]

    def _photograph(self, name: str) -> Image.Image:
        """Tiles of one photograph follow each other, so the last one is kept."""
        if self._decoded is None or self._decoded[0] != name:
            self._decoded = (name, rgb(self.root / name))
        return self._decoded[1]

    def _refuse(self, files: int) -> None:
        if len(self.skipped) == files:
            raise UserError(
                f"images.path: none of the {files} file(s) in {self.root} can be read as an image, "
                f"the first is {self.skipped[0]}; set it to a directory with photographs."
            )
        raise UserError(
            f"images.tile: no photograph in {self.root} is as large as {self.images.tile} pixels; use a smaller tile."
        )


def _check_signature(path: Path) -> None:
    with path.open("rb") as file:
        if not file.read(12).startswith(SIGNATURES):
            raise ValueError("no JPEG, PNG or WebP file")


def _upright_size(image: Image.Image) -> tuple[int, int]:
    turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
    return image.size[::-1] if turned else image.size


def _by_photograph(identities: list[str]) -> list[str]:
    """Bring the tiles of a photograph together, photographs in the order in which they first appear."""
    first: dict[str, int] = {}
    for identity in identities:
        first.setdefault(identity.rpartition("@")[0], len(first))
    return sorted(identities, key=lambda identity: first[identity.rpartition("@")[0]])
