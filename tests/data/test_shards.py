"""Images in shards: ordinary PNG files that hold every pixel."""

from __future__ import annotations

import hashlib
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from holdfast.data.shards import png


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_a_png_file_holds_the_pixels(width: int, height: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    with Image.open(BytesIO(png(Image.fromarray(pixels)))) as image:
        image.verify()
    with Image.open(BytesIO(png(Image.fromarray(pixels)))) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (width, height))
        assert np.array_equal(np.asarray(image), pixels)


def test_an_image_larger_than_a_block_of_zlib_is_whole() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    with Image.open(BytesIO(png(Image.fromarray(pixels)))) as image:
        assert np.array_equal(np.asarray(image), pixels)


def test_the_bytes_do_not_change() -> None:
    image = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    assert hashlib.sha256(png(image)).hexdigest() == "bc174d682fa5422e2d86e5538f5a8ad4edf2b3c247ca829f078e66981657ecd7"


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_an_image_of_another_mode_is_refused(mode: str) -> None:
    with pytest.raises(ValueError, match=f"mode {mode}"):
        png(Image.new(mode, (2, 2)))
