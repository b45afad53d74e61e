"""Encoded images as the pixels that a model sees: upright, RGB, what is transparent white; and what they look like."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps
from PIL.ImageFile import ImageFile

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
"""Formats that hold pixels and nothing else: PostScript is a program."""
MOST = 89_478_485
"""Pixels of an image, Pillow's own limit: a few kilobytes can say that they are gigabytes."""
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
"""What `rgb` raises for files that are damaged or no images."""
GREY_LEVELS = 3
"""What is darker by less is noise to `pattern`, which JPEG leaves in even areas."""


def opened(file: BinaryIO | Path) -> ImageFile:
    """A file's image, of which only the header was read.

    Raises:
        DecompressionBombError: it has more pixels than MOST.
        UnidentifiedImageError: it is of none of the FORMATS.
    """
    image = Image.open(file, formats=FORMATS)
    width, height = image.size
    if width * height > MOST:
        image.close()
        raise Image.DecompressionBombError(f"{width}×{height} pixels are more than {MOST // 10**6} million")
    return image


def rgb(file: BinaryIO | Path, smallest: int | None = None) -> Image.Image:
    """A file as an upright RGB image; transparency becomes white, 16 bits become 8, of an animation the first frame.

    With `smallest`, a JPEG may be decoded at a fraction of its size, its shorter side at least that many pixels.
    """
    try:
        with opened(file) as image:
            if smallest is not None:
                image.draft("RGB", (smallest, smallest))
            # Loading forgets how the samples were packed.
            packed = _packing(image)
            image.load()
            turned = image.getexif().get(ExifTags.Base.Orientation, 1)
            flat = _flat(image, packed, file)
    except (*UNREADABLE, MemoryError):
        raise
    except Exception as error:
        # Pillow's decoders trip over damaged files in any way.
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if turned != 1:
        flat.getexif()[ExifTags.Base.Orientation] = turned
        ImageOps.exif_transpose(flat, in_place=True)
    return flat


def square(image: Image.Image, size: int) -> Image.Image:
    """The centre square, resized to `size` pixels a side."""
    return ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)


def digest(image: Image.Image) -> bytes:
    """Of an RGB image's size and pixels: equal where the pictures are."""
    return hashlib.blake2b(image.tobytes(), digest_size=16, key=struct.pack(">II", *image.size)).digest()


def pattern(image: Image.Image) -> np.ndarray:
    """Where a picture gets lighter from left to right, on a grid of 16×16, as four uint64.

    A difference hash: hardly changed by another size, compression or brightness.
    """
    grey = np.asarray(image.convert("L").resize((17, 16), Image.Resampling.BOX), np.int16)
    return np.packbits(grey[:, 1:] >= grey[:, :-1] + GREY_LEVELS).view(np.uint64)


def _packing(image: Image.Image) -> str:
    """Pillow's name for how a PNG's samples are stored, for example L;2 for greys of two bits; empty for others."""
    tiles: Any = getattr(image, "tile", None)
    return str(tiles[0][3]) if image.format == "PNG" and tiles else ""


def _flat(image: Image.Image, packed: str, file: BinaryIO | Path) -> Image.Image:
    """In RGB, on white."""
    key = image.info.get("transparency")
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _scaled(image, key)
    if key is not None and image.mode in ("1", "L", "RGB"):
        return _keyed(image, key, packed, file)
    if "A" in image.getbands() or key is not None:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        white.alpha_composite(layer)
        return white.convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _scaled(image: Image.Image, key: Any) -> Image.Image:
    """Greys of more than 8 bits. Those that a 32-bit image has in fewer bits stay what they are."""
    if image.mode == "F":
        raise ValueError("its pixels are fractions of unknown range; save it with 8 bits")
    grey = np.asarray(image)
    low, high = int(grey.min()), int(grey.max())
    if low < 0 or high > 0xFFFF:
        raise ValueError("its pixels have more than 16 bits; save it with 8 bits")
    shift = 0 if image.mode == "I" and high < 256 else 8
    eight = (grey >> shift).astype(np.uint8)
    if isinstance(key, int):
        eight[grey == key] = 255
    return Image.fromarray(eight).convert("RGB")


def _keyed(image: Image.Image, key: Any, packed: str, file: BinaryIO | Path) -> Image.Image:
    """One colour of a PNG or GIF is transparent, named by the samples that the file stores."""
    pixels = np.asarray(image.convert("RGB")).copy()
    samples = np.asarray(image.convert("L") if image.mode == "1" else image)
    if packed in ("L;2", "L;4"):
        key = key * (85 if packed == "L;2" else 17)
    if packed == "RGB;16B":
        # Pillow keeps the first of two bytes; read as if bytes were swapped, it gives the second.
        samples = samples.astype(np.uint16) << 8 | _second_bytes(file)
    hidden = samples == np.asarray(key)
    pixels[hidden.all(-1) if hidden.ndim == 3 else hidden] = 255
    return Image.fromarray(pixels)


def _second_bytes(file: BinaryIO | Path) -> np.ndarray:
    if not isinstance(file, Path):
        file.seek(0)
    with opened(file) as image:
        tiles: Any = image
        tiles.tile = [tile._replace(args="RGB;16L") for tile in tiles.tile]
        return np.asarray(image)
