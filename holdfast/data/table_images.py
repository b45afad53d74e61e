"""Images in a table of the user's own: a path, encoded bytes, base64, a data URI, pixels, or a list of these."""

from __future__ import annotations

import base64
import binascii
import re
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
from PIL import Image

from holdfast.data.pixels import UNREADABLE, rgb
from holdfast.data.tables import missing
from holdfast.errors import brief, reason

Encoded = bytes | Path | Image.Image
"""A file's content, its path, or decoded pixels."""
WANTED = "give the path of an image, its bytes, base64 or a data URI, or a list of such"
BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-\s]{24,}=*\s*")


class UnusableImage(ValueError):
    """A value that is no image; the message goes on after the word `image`, and ends with the remedy."""


def images(value: Any, folder: Path) -> list[Image.Image]:
    """All images of a value, upright and RGB. UnusableImage if one cannot be read."""
    return [_decoded(found, folder) for found in sources(value, folder)]


def sources(value: Any, folder: Path) -> list[Encoded]:
    """What a value holds or names, in order; relative paths begin in `folder`. UnusableImage if that is no image."""
    if missing(value) or (isinstance(value, str | bytes | list | dict) and not value):
        raise UnusableImage(f"is empty; {WANTED}")
    if isinstance(value, str):
        return [_written(value.strip(), folder)]
    if isinstance(value, bytes):
        return [value]
    if isinstance(value, dict):
        return sources(_inside(value), folder)
    if not isinstance(value, list):
        raise UnusableImage(f"is {brief(repr(value))}; {WANTED}")
    if _is_number(value[0]):
        return [_bytes(value)]
    if _depth(value) in (2, 3):
        return [_picture(value)]
    return [found for part in value for found in sources(part, folder)]


def files(value: Any, folder: Path) -> list[Path]:
    """The files that a value names."""
    return [found for found in sources(value, folder) if isinstance(found, Path)]


def refusal(path: Path, folder: Path, why: str) -> UnusableImage:
    """Of a file that a value names."""
    name = path.relative_to(folder) if path.is_relative_to(folder) else path
    return UnusableImage(f"({brief(name)}) cannot be read ({why}); replace it or remove the row")


def _decoded(found: Encoded, folder: Path) -> Image.Image:
    if isinstance(found, Image.Image):
        return found
    try:
        return rgb(BytesIO(found) if isinstance(found, bytes) else found)
    except FileNotFoundError as error:
        raise refusal(Path(str(found)), folder, "no such file") from error
    except UNREADABLE as error:
        why = "no image" if isinstance(error, Image.UnidentifiedImageError) else _why(error)
        if isinstance(found, Path):
            raise refusal(found, folder, why) from error
        raise UnusableImage(f"(bytes) cannot be read ({why}); replace it or remove the row") from error


def _why(error: BaseException) -> str:
    """Without the path, which the message has already."""
    return error.strerror.lower() if isinstance(error, OSError) and error.strerror else reason(error)


def _inside(struct: dict[str, Any]) -> Any:
    """What a struct of `datasets`, or of a chat, holds."""
    for name in ("bytes", "path", "url", "image_url", "image"):
        if not missing(struct.get(name)) and struct[name] != "":
            return struct[name]
    if any(name in struct for name in ("bytes", "path")):
        raise UnusableImage(f"is empty; {WANTED}")
    raise UnusableImage(f"has neither bytes nor path but {brief(', '.join(map(str, struct)))}; {WANTED}")


def _written(value: str, folder: Path) -> Encoded:
    """A data URI, an address, a path, or base64."""
    if value[:5].lower() == "data:":
        head, _, written = value.partition(",")
        if not head.lower().endswith(";base64"):
            raise UnusableImage(f"({brief(value)}) is a data URI without base64; {WANTED}")
        return _from_base64(unquote(written))
    if value[:5].lower() == "file:":
        return Path(unquote(urlsplit(value).path))
    if _ADDRESS.match(value):
        raise UnusableImage(f"({brief(value)}) is an address; download the image and give its path")
    path = folder / (Path(value).expanduser() if value.startswith("~/") else value)
    if not is_file(path) and _BASE64.fullmatch(value):
        try:
            content = _from_base64(value)
        except UnusableImage:
            return path
        if content.startswith(BEGINNINGS):
            return content
    return path


def is_file(path: Path) -> bool:
    """Whether it is there; a text that is too long for a name, or none, is no file."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _from_base64(content: str) -> bytes:
    plain = "".join(content.split()).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise UnusableImage(f"({brief(content)}) is no base64; {WANTED}") from error


def _bytes(numbers: list[Any]) -> bytes:
    """A file's content as a list of numbers."""
    try:
        return bytes(numbers)
    except (TypeError, ValueError) as error:
        raise UnusableImage(f"is a list of numbers that are no bytes; {WANTED}") from error


def _picture(numbers: list[Any]) -> Image.Image:
    try:
        found = _pixels(numbers)
    except ValueError as error:
        raise UnusableImage(f"is an array that {error}; {WANTED}") from error
    picture = Image.fromarray(found[..., 0] if found.ndim == 3 and found.shape[2] == 1 else found)
    if picture.mode == "RGBA":
        white = Image.new("RGBA", picture.size, "white")
        white.alpha_composite(picture)
        picture = white
    return picture.convert("RGB")


def _pixels(numbers: Any) -> np.ndarray:
    """Nested lists of numbers as uint8 of shape (height, width) or (height, width, channels). ValueError otherwise."""
    try:
        found = np.asarray(numbers)
    except ValueError:
        raise ValueError("has rows of unlike lengths") from None
    if found.ndim not in (2, 3) or (found.ndim == 3 and found.shape[2] not in (1, 3, 4)) or not found.size:
        shape = "×".join(map(str, found.shape))
        raise ValueError(f"has the shape {shape} instead of height × width or height × width × 3")
    if found.dtype.kind not in "biuf" or not (found >= 0).all():
        raise ValueError("has pixels that are no numbers from 0 to 255")
    if found.dtype.kind == "b" or (found.dtype.kind == "f" and found.max() <= 1):
        found = found * 255.0
    if found.max() > 255:
        raise ValueError("has pixels that are no numbers from 0 to 255")
    return np.round(found).astype(np.uint8)


def _depth(value: Any) -> int:
    """How deep the lists of numbers are nested; 0 where other things are in them."""
    depth = 0
    while isinstance(value, list) and value:
        value, depth = value[0], depth + 1
    return depth if _is_number(value) else 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)
