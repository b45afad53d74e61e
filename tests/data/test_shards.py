"""Images in shards: ordinary PNG files that hold every pixel, in memory or on disk."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from io import BytesIO
from pathlib import Path

import datasets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from holdfast.data import shards
from holdfast.data.shards import Question, png, read_questions, write_questions
from holdfast.errors import UserError


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


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """Questions with one image, none, and two, in a place whose name is a pattern."""
    shown = [
        (png(Image.new("RGB", (4, 4), (n, 0, 0))), png(Image.new("RGB", (2, 2), (0, n, 0))))[:n] for n in (1, 0, 2)
    ]
    rows = [
        Question(str(n), "", images, "p", "a", "r", "exact", "color", accepted=("x",)) for n, images in enumerate(shown)
    ]
    (tmp_path / "data[1]").mkdir()
    write_questions(tmp_path / "data[1]" / "shard.parquet", rows)
    return tmp_path / "data[1]" / "shard.parquet"


def test_images_of_a_large_shard_stay_on_disk_and_are_the_same(
    shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache[1]")
    kept = read_questions(shard)
    assert all(isinstance(question.images, tuple) for question in kept)
    assert not (tmp_path / "cache[1]").exists()
    monkeypatch.setattr(shards, "LARGE", 1)
    mapped = read_questions(shard)
    assert not any(isinstance(question.images, tuple) for question in mapped)
    assert [len(question.images) for question in mapped] == [1, 0, 2]
    assert [question._replace(images=tuple(question.images)) for question in mapped] == kept
    assert mapped[2].images[1] == kept[2].images[1]
    # Moved or checked out again, it is the same shard.
    moved = shutil.copy(shard, tmp_path / "moved.parquet")
    assert read_questions(Path(moved))[2].images[1] == kept[2].images[1]
    assert len(list((tmp_path / "cache[1]").rglob("*.arrow"))) == 1


def test_a_shard_that_was_replaced_is_not_taken_for_the_one_before(
    shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(shards, "LARGE", 1)
    before, kept = shard.stat(), read_questions(shard)
    images = [tuple(reversed(question.images)) for question in kept]
    write_questions(shard, [question._replace(images=of) for question, of in zip(kept, images, strict=True)])
    os.utime(shard, ns=(before.st_atime_ns, before.st_mtime_ns))
    found = read_questions(shard)
    assert [tuple(question.images) for question in found] == images
    assert images[2] != tuple(kept[2].images)


def test_a_place_that_takes_no_large_shard_is_told(
    shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "file" / "cache")
    monkeypatch.setattr(shards, "LARGE", 1)
    with pytest.raises(
        UserError, match=f"{tmp_path}/file/cache: the images of {re.escape(str(shard))} cannot be laid out there"
    ):
        read_questions(shard)
