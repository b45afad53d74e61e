"""Which image goes to which split: equal pictures count once, and all of a photograph stays in one split."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from PIL import Image

from holdfast.data.near_duplicates import NearDuplicates
from holdfast.data.pixels import UNREADABLE, digest, pattern, square
from holdfast.data.world import generator
from holdfast.errors import UserError, brief

CHUNK = 16
"""Images that a thread takes at a time: handing them over one by one costs more than decoding some."""
REMEMBERED = 64 * 2**20
"""Bytes of decoded images that a source keeps; those of a small study are decoded once."""
T = TypeVar("T")
R = TypeVar("R")


class Share(NamedTuple):
    """A split, how many puzzles it wants, and how many images it gets."""

    name: str
    wanted: int
    images: int


def split_images(images: int, counts: dict[str, int], seed: int, field: str = "images") -> dict[str, list[int]]:
    """Shuffled image numbers by split, in proportion to the puzzles that each wants, at least one.

    UserError, of the config's `field`, where there are fewer images than splits.
    """
    return _split(generator("splits", seed).permutation(images).tolist(), counts, field)


def _split(order: list[T], counts: dict[str, int], field: str = "images") -> dict[str, list[T]]:
    if len(order) < len(counts):
        raise UserError(
            f"{field}: {len(order)} readable image(s) cannot fill {len(counts)} disjoint splits; add images "
            f"(equal pictures count once, and the tiles of a photograph stay in one split)."
        )
    splits = {}
    start = 0
    for share in _shares(len(order), counts):
        splits[share.name] = order[start : start + min(share.images, share.wanted)]
        start += share.images
    return splits


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


class Fingerprint(NamedTuple):
    """What is known of an image once it was decoded."""

    photograph: str
    whole: bytes
    """Digest of the photograph that it is a tile of; of an image that is no tile, of itself."""
    own: bytes
    """Digest of its pixels as they are shown."""


class Pictures:
    """Images from outside, as photographs or as tiles of them, split by what they show.

    Only images that a split may use are decoded for that, on all cores. The decoded pictures are kept as long as they
    are few, so that a small study decodes each once and a large one twice; memory has a bound.
    """

    def __init__(self, size: int, seed: int, tile: int | None = None) -> None:
        self.size, self.seed, self.tile = size, seed, tile
        self.skipped: list[str] = []
        self.warnings: list[str] = []
        self._fingerprints: dict[str, Fingerprint] = {}
        self._kept: dict[str, Image.Image] = {}
        self._room = REMEMBERED
        self._near_duplicates = NearDuplicates()

    def photographs(self) -> dict[str, list[str]]:
        """The identities of images by that of the photograph which they are, or are tiles of; undecoded if possible."""
        raise NotImplementedError

    def decoded(self, photograph: str) -> Image.Image:
        """An upright RGB image. Raises one of UNREADABLE."""
        raise NotImplementedError

    def split(self, counts: dict[str, int]) -> dict[str, list[str]]:
        """Split anew without those found equal to another, until no two are."""
        found = {name: self._shuffled(name, images) for name, images in self.photographs().items()}
        names = list(found)
        order = [names[number] for number in generator("splits", self.seed).permutation(len(names))]
        equal: dict[str, str] = {}
        while True:
            left = {name: images for name in order if name not in equal if (images := _without(found[name], equal))}
            shares = _split(list(left), counts)
            chosen = {split: _spread([left[name] for name in shares[split]], counts[split]) for split in shares}
            self._decode([image for images in chosen.values() for image in images])
            new = self._equal(chosen)
            if not new:
                break
            equal |= new
        self._warn(equal, chosen)
        return {split: chosen[split] for split in counts}

    def load(self, image_id: str) -> Image.Image | None:
        """A square RGB image; None, and a skipped name, where it cannot be read."""
        if image_id in self._kept:
            return self._kept[image_id]
        photograph = self._photograph(image_id)
        if photograph in self.skipped:
            return None
        try:
            return self._cut(self.decoded(photograph), image_id)
        except UNREADABLE:
            self.skipped.append(photograph)
            return None

    def _photograph(self, image_id: str) -> str:
        return image_id.rpartition("@")[0] if self.tile else image_id

    def _cut(self, photograph: Image.Image, image_id: str) -> Image.Image:
        if self.tile is None:
            return square(photograph, self.size)
        x, y = (int(side) for side in image_id.rpartition("@")[2].split(","))
        return square(photograph.crop((x, y, x + self.tile, y + self.tile)), self.size)

    def _shuffled(self, photograph: str, images: list[str]) -> list[str]:
        """The tiles of a photograph in random order: the first are taken."""
        if len(images) < 2:
            return images
        return [images[number] for number in generator("tiles", self.seed, photograph).permutation(len(images))]

    def _decode(self, images: list[str]) -> None:
        """Those that were not decoded yet. A damaged one is left for `load` to find."""
        tiles: dict[str, list[str]] = {}
        for image in images:
            if image not in self._fingerprints:
                tiles.setdefault(self._photograph(image), []).append(image)
        for found in in_order(self._fingerprints_of, list(tiles.items())):
            self._fingerprints |= found

    def _fingerprints_of(self, tiles: list[tuple[str, list[str]]]) -> dict[str, Fingerprint]:
        found = {}
        for name, images in tiles:
            try:
                photograph = self.decoded(name)
            except UNREADABLE:
                continue
            whole = digest(photograph) if self.tile else b""
            for image in images:
                shown = self._cut(photograph, image)
                self._keep(image, shown)
                own = digest(shown)
                found[image] = Fingerprint(name, whole or own, own)
            self._near_duplicates.add(name, pattern(photograph if self.tile else shown))
        return found

    def _keep(self, image_id: str, shown: Image.Image) -> None:
        if self._room > 0:
            self._kept[image_id] = shown
            self._room -= 3 * shown.width * shown.height

    def _equal(self, chosen: dict[str, list[str]]) -> dict[str, str]:
        """What shows what another shows, with that other one: photographs, and tiles of photographs that differ."""
        photographs: dict[bytes, str] = {}
        pictures: dict[bytes, str] = {}
        equal = {}
        for image in (image for images in chosen.values() for image in images if image in self._fingerprints):
            shown = self._fingerprints[image]
            photograph = photographs.setdefault(shown.whole, shown.photograph)
            if photograph != shown.photograph:
                equal[shown.photograph] = photograph
            elif (other := pictures.setdefault(shown.own, image)) != image:
                equal[image] = other
        return equal

    def _warn(self, equal: dict[str, str], chosen: dict[str, list[str]]) -> None:
        if equal:
            of = [f"{brief(image)} (= {brief(other)})" for image, other in sorted(equal.items())]
            self.warnings.append(f"{len(equal)} image(s) show what another one shows and are left out: {listed(of)}.")
        splits = {name: split for split, images in chosen.items() for name in map(self._photograph, images)}
        if near_duplicates := self._near_duplicates.warning(splits):
            self.warnings.append(near_duplicates)


def _without(images: list[str], equal: dict[str, str]) -> list[str]:
    return [image for image in images if image not in equal]


def _spread(photographs: list[list[str]], wanted: int) -> list[str]:
    """As many images as wanted, from as many photographs as possible, those of a photograph together."""
    taken = sorted(
        (rank, place, image) for place, images in enumerate(photographs) for rank, image in enumerate(images)
    )[:wanted]
    return [image for _, _, image in sorted(taken, key=lambda found: found[1])]


def in_order(make: Callable[[list[T]], R], items: Sequence[T]) -> Iterator[R]:
    """What `make` makes of chunks of the items, on all cores, in order and not far ahead of what is taken.

    Pillow decodes without holding Python's lock.
    """
    cores = len(os.sched_getaffinity(0))
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(cores) as pool:
        for at in range(0, len(items), CHUNK):
            waiting.append(pool.submit(make, list(items[at : at + CHUNK])))
            if len(waiting) == 2 * cores:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def listed(names: Sequence[str], most: int = 3) -> str:
    """Names for a person, of many the first few."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(brief, names[:most])) + more
