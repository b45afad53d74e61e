"""Photographs in a directory, whole or cut into tiles."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from PIL import ExifTags, Image

from holdfast.config.images import Folder
from holdfast.data.pixels import UNREADABLE, opened, rgb
from holdfast.data.splits import Pictures, listed
from holdfast.errors import UserError, brief

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
JPEG = b"\xff\xd8\xff"
SIGNATURES = (JPEG, b"\x89PNG", b"RIFF")
CLUTTER = ("__MACOSX", "@eaDir", "$RECYCLE.BIN")
"""Folders in which archives, network drives and systems keep copies; hidden ones begin with a dot."""
SHIPPED = (
    ("sklearn", "datasets/images/china.jpg"),
    ("sklearn", "datasets/images/flower.jpg"),
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
)
"""Photographs that come with installed packages, one for each split."""


class Found(NamedTuple):
    """What a directory holds, by names relative to it."""

    photographs: dict[str, Path]
    hidden: list[str]
    others: list[str]
    """Files of another kind, by their suffix."""
    unread: list[str]
    """Folders that cannot be listed, and links to nothing."""


def find(images: Folder) -> Found:
    """The photographs below the configured directory, sorted by name; without one, those of installed packages."""
    if images.path is None:
        paths = [_package(package) / name for package, name in SHIPPED]
        return Found({path.name: path for path in paths}, [], [], [])
    if not images.path.is_dir():
        raise UserError(
            f"images.path: {brief(images.path, 120)} is no directory; set it to a directory with photographs."
        )
    found = _walked(images.path)
    if not found.photographs:
        raise UserError(
            f"images.path: {brief(images.path, 120)} holds no JPEG, PNG or WebP file; "
            f"set it to a directory with photographs."
        )
    return found


def photographs(images: Folder) -> list[Path]:
    """The files of all photographs, sorted by name."""
    return list(find(images).photographs.values())


class FolderSource(Pictures):
    """Identities are relative paths, with `@x,y` for the tile at that corner."""

    def __init__(self, images: Folder, seed: int) -> None:
        super().__init__(images.size, seed, images.tile)
        self.images = images
        self.found = find(images)
        self.skipped += self.found.unread
        self._draft = False
        self._last: tuple[str, Image.Image] | None = None

    def photographs(self) -> dict[str, list[str]]:
        """By their first bytes, and where they are cut into tiles by their size."""
        self._warn_of_left_out()
        files = self.found.photographs
        # A JPEG at a fraction of its size never equals the same picture in another format.
        signed = {_signature(path) for path in files.values()} if self.tile is None else set()
        self._draft = signed - {b""} == {JPEG}
        found = {name: images for name, path in files.items() if (images := self._identities(name, path))}
        if not found:
            self._refuse(len(files))
        if small := [name for name in files if name not in found and name not in self.skipped]:
            self.warnings.append(
                f"{len(small)} photograph(s) are smaller than a tile and are left out: {listed(small)}."
            )
        return found

    def decoded(self, photograph: str) -> Image.Image:
        """Tiles of one photograph follow each other, so the last one is kept."""
        path = self.found.photographs[photograph]
        if self.tile is None:
            return rgb(path, self.size if self._draft else None)
        last = self._last
        if last is None or last[0] != photograph:
            last = self._last = (photograph, rgb(path))
        return last[1]

    def _identities(self, name: str, path: Path) -> list[str]:
        tile = self.tile
        try:
            if tile is None:
                if not _signature(path):
                    raise ValueError("no JPEG, PNG or WebP file")
                return [name]
            with opened(path) as image:
                width, height = _upright_size(image)
        except UNREADABLE:
            self.skipped.append(name)
            return []
        return [f"{name}@{x},{y}" for y in range(0, height - tile + 1, tile) for x in range(0, width - tile + 1, tile)]

    def _warn_of_left_out(self) -> None:
        kinds = {"hidden file(s) and folder(s)": self.found.hidden, "file(s) of other kinds": self.found.others}
        self.warnings += [
            f"{len(names)} {kind} in {brief(self.images.path)} are left out: {listed(names)}."
            for kind, names in kinds.items()
            if names
        ]

    def _refuse(self, files: int) -> None:
        where = brief(self.images.path, 100)
        if len(self.skipped) >= files:
            raise UserError(
                f"images.path: none of the {files} file(s) in {where} can be read as an image, "
                f"the first is {brief(self.skipped[0])}; set it to a directory with photographs."
            )
        raise UserError(f"images.tile: no photograph in {where} is as large as {self.tile} pixels; use a smaller tile.")


def _walked(root: Path) -> Found:
    """All files below, through links too; a folder is read once, by its own name rather than by a link's."""
    found = Found({}, [], [], [])
    starts, seen = [root], set()

    def unread(error: OSError) -> None:
        found.unread.append(_name(Path(str(error.filename)), root))

    while starts:
        for folder, folders, files in os.walk(starts.pop(0), onerror=unread):
            state = os.stat(folder)
            if (state.st_dev, state.st_ino) in seen:
                folders.clear()
                continue
            seen.add((state.st_dev, state.st_ino))
            paths = {name: Path(folder, name) for name in sorted([*folders, *files])}
            folders[:] = [name for name in sorted(folders) if not _is_hidden(name)]
            starts += [paths[name] for name in folders if paths[name].is_symlink()]
            for name, path in paths.items():
                if _is_hidden(name):
                    found.hidden.append(_name(path, root))
                elif name not in folders:
                    _sort_in(found, path, root)
    return Found(dict(sorted(found.photographs.items())), *(sorted(names) for names in found[1:]))


def _sort_in(found: Found, path: Path, root: Path) -> None:
    name = _name(path, root)
    if path.suffix.lower() not in SUFFIXES:
        found.others.append(name)
    elif path.is_file():
        found.photographs[name] = path
    else:
        found.unread.append(name)


def _name(path: Path, root: Path) -> str:
    """Relative, and readable text even where the file's name is none."""
    return os.fsencode(path.relative_to(root).as_posix()).decode("utf-8", "backslashreplace")


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in CLUTTER


def _package(name: str) -> Path:
    package = find_spec(name)
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent


def _signature(path: Path) -> bytes:
    """How the file of an image begins; empty for any other, and for one that cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError:
        return b""
    return next((signature for signature in SIGNATURES if head.startswith(signature)), b"")


def _upright_size(image: Image.Image) -> tuple[int, int]:
    turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
    return image.size[::-1] if turned else image.size
