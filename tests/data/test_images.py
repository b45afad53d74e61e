"""Images from the world, from folders and from data sets."""

from io import BytesIO
from pathlib import Path

import datasets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from holdfast.config import Folder, Hub, World
from holdfast.data.images import deal, open_source, rgb
from holdfast.errors import UserError

COUNTS = {"train": 6, "validation": 2, "test": 2}


def photograph(path: Path, seed: int, size: tuple[int, int] = (96, 64), **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize(size).save(path, **options)


def album(folder: Path, count: int) -> Path:
    for index in range(count):
        suffix = ("jpg", "PNG", "webp", "jpeg")[index % 4]
        photograph(folder / f"sub{index % 3}" / f"{index:02d}.{suffix}", index)
    return folder


def folder_source(path: Path, **options: object):  # type: ignore[no-untyped-def]
    return open_source(Folder(source="folder", path=path, **options), seed=0)


@given(st.integers(3, 400), st.lists(st.integers(1, 300), min_size=3, max_size=3))
def test_splits_are_disjoint_never_empty_and_never_larger_than_wanted(images: int, wanted: list[int]) -> None:
    counts = dict(zip(("train", "validation", "test"), wanted, strict=True))
    dealt = deal(images, counts, seed=0)
    numbers = [number for split in dealt.values() for number in split]
    assert len(numbers) == len(set(numbers))
    assert set(numbers) <= set(range(images))
    for name, count in counts.items():
        assert 1 <= len(dealt[name]) <= count
    if images >= sum(wanted) + 3:
        assert {name: len(dealt[name]) for name in counts} == counts


def test_scenes_of_the_world_differ_between_splits_and_seeds() -> None:
    splits = open_source(World(), seed=0).split(COUNTS)
    assert {name: len(ids) for name, ids in splits.items()} == COUNTS
    images = {
        open_source(World(), seed).load(image_id).tobytes()
        for seed in (0, 1)
        for ids in splits.values()
        for image_id in ids
    }
    assert len(images) == 20


def test_a_folder_is_read_recursively_in_all_three_formats(tmp_path: Path) -> None:
    source = folder_source(album(tmp_path, 12), size=32)
    splits = source.split(COUNTS)
    ids = [image_id for split in splits.values() for image_id in split]
    assert len(set(ids)) == len(ids) == 10
    for image_id in ids:
        image = source.load(image_id)
        assert (image.size, image.mode) == ((32, 32), "RGB")
    assert source.skipped == []


def test_splits_do_not_depend_on_where_the_folder_is(tmp_path: Path) -> None:
    here, there = album(tmp_path / "here", 12), album(tmp_path / "there", 12)
    assert folder_source(here).split(COUNTS) == folder_source(there).split(COUNTS)


def test_unreadable_files_are_skipped_and_named(tmp_path: Path) -> None:
    album(tmp_path, 8)
    (tmp_path / "note.jpg").write_text("no image")
    whole = (tmp_path / "sub0" / "00.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    source = folder_source(tmp_path)
    splits = source.split({"train": 7, "validation": 1, "test": 1})
    assert source.skipped == ["note.jpg"]
    loaded = {image_id: source.load(image_id) for split in splits.values() for image_id in split}
    assert {image_id for image_id, image in loaded.items() if image is None} == {"cut.jpg"}
    assert source.skipped == ["note.jpg", "cut.jpg"]


def test_by_default_installed_photographs_are_cut_into_tiles_one_for_each_split() -> None:
    splits = open_source(Folder(source="folder", tile=64), seed=0).split({"train": 100, "validation": 10, "test": 10})
    shown = {name: {image_id.partition("@")[0] for image_id in ids} for name, ids in splits.items()}
    assert set.union(*shown.values()) == {"china.jpg", "flower.jpg", "grace_hopper.jpg"}
    assert [len(names) for names in shown.values()] == [1, 1, 1]
    assert {name: len(splits[name]) for name in ("validation", "test")} == {"validation": 10, "test": 10}


def test_tiles_are_the_disjoint_squares_of_their_photograph(tmp_path: Path) -> None:
    for index, name in enumerate("abc"):
        photograph(tmp_path / f"{name}.png", index, (100, 70))
    source = folder_source(tmp_path, tile=32, size=32)
    splits = source.split({"train": 6, "validation": 6, "test": 6})
    corners = [f"@{x},{y}" for x in (0, 32, 64) for y in (0, 32)]
    photographs = {name: {image_id.partition("@")[0] for image_id in ids} for name, ids in splits.items()}
    for name, ids in splits.items():
        assert sorted(ids) == [next(iter(photographs[name])) + corner for corner in corners]
    with Image.open(tmp_path / "a.png") as image:
        assert source.load("a.png@64,32").tobytes() == image.crop((64, 32, 96, 64)).tobytes()


def test_an_image_is_cropped_to_its_centre(tmp_path: Path) -> None:
    wide = Image.new("RGB", (96, 32), "red")
    wide.paste("blue", (32, 0, 64, 32))
    wide.save(tmp_path / "wide.png")
    assert folder_source(tmp_path, size=16).load("wide.png").getpixel((1, 8)) == (0, 0, 255)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_the_camera_s_orientation_is_followed(tmp_path: Path, suffix: str) -> None:
    image = Image.new("RGB", (64, 64), "red")
    image.paste("blue", (0, 0, 64, 32))
    exif = Image.Exif()
    exif[0x0112] = 6  # the top of the scene is at the right
    image.save(tmp_path / f"turned.{suffix}", exif=exif)
    red, _, blue = folder_source(tmp_path, size=8).load(f"turned.{suffix}").getpixel((7, 4))
    assert blue > 200 > 50 > red


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "I;16", "CMYK"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.full((8, 8), 200 * 256, np.uint16))
    elif mode == "1":
        image = Image.new("1", (8, 8), 1)
    else:
        image = Image.new("RGB", (8, 8), (200, 200, 200)).convert(mode)
    path = tmp_path / ("image.jpg" if mode == "CMYK" else "image.png")
    image.save(path)
    shown = rgb(path)
    assert shown.mode == "RGB"
    assert shown.getpixel((4, 4)) == pytest.approx((255,) * 3 if mode == "1" else (200,) * 3, abs=4)


def test_transparency_becomes_white(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    palette = Image.new("P", (8, 8), 0)
    palette.save(tmp_path / "palette.png", transparency=0)
    assert rgb(tmp_path / "clear.png").getpixel((0, 0)) == (255, 255, 255)
    assert rgb(tmp_path / "palette.png").getpixel((0, 0)) == (255, 255, 255)


def test_a_jpeg_decoded_at_a_fraction_looks_like_the_whole(tmp_path: Path) -> None:
    photograph(tmp_path / "a.jpg", 0, (640, 480), quality=95)
    small = rgb(tmp_path / "a.jpg", 64)
    assert min(small.size) in range(64, 480)
    whole = rgb(tmp_path / "a.jpg").resize(small.size)
    assert np.abs(np.asarray(small, float) - np.asarray(whole, float)).mean() < 4


def test_a_missing_folder_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"images\.path: .*nowhere is no directory"):
        folder_source(tmp_path / "nowhere").split(COUNTS)


def test_a_folder_without_images_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "text.txt").touch()
    with pytest.raises(UserError, match=r"images\.path: .* holds no JPEG, PNG or WebP"):
        folder_source(tmp_path).split(COUNTS)


def test_a_folder_of_unreadable_files_is_refused_with_the_first_name(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    with pytest.raises(UserError, match=r"images\.path: none of the 1 file.*a\.jpg"):
        folder_source(tmp_path).split(COUNTS)


def test_tiles_larger_than_all_photographs_are_refused(tmp_path: Path) -> None:
    photograph(tmp_path / "a.jpg", 0)
    with pytest.raises(UserError, match=r"images\.tile: .* 65 pixels"):
        folder_source(tmp_path, tile=65).split(COUNTS)


def test_fewer_images_than_splits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"2 readable image\(s\) cannot fill 3 disjoint splits"):
        folder_source(album(tmp_path, 2)).split(COUNTS)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A local copy of a Hub data set with an image column, one cell of which is damaged."""
    folder = tmp_path_factory.mktemp("dataset")
    cells = []
    for index in range(10):
        photograph(folder / "cell.jpg", index, (640, 480))
        cells.append({"bytes": (folder / "cell.jpg").read_bytes(), "path": None})
    cells[3] = {"bytes": b"damaged", "path": None}
    (folder / "cell.jpg").unlink()
    features = datasets.Features({"photo": datasets.Image(decode=False), "label": datasets.Value("int64")})
    rows = datasets.Dataset.from_dict({"photo": cells, "label": [1] * 10}, features=features)
    rows.cast_column("photo", datasets.Image()).to_parquet(folder / "train-00000-of-00001.parquet")
    return folder


def hub_source(dataset: Path, **options: object):  # type: ignore[no-untyped-def]
    return open_source(Hub(source="hub", name=str(dataset), **{"column": "photo", **options}), seed=0)


def test_an_image_column_of_a_data_set_is_read_row_by_row(dataset: Path) -> None:
    source = hub_source(dataset, size=32)
    splits = source.split({"train": 6, "validation": 2, "test": 2})
    images = {image_id: source.load(image_id) for split in splits.values() for image_id in split}
    assert len(images) == 10
    assert {image.size for image in images.values() if image is not None} == {(32, 32)}
    assert source.skipped == ["train/00000003"]


def test_an_unknown_column_is_refused_with_those_there_are(dataset: Path) -> None:
    with pytest.raises(UserError, match=r"images\.column: .* no column 'image'; it has photo, label"):
        hub_source(dataset, column="image")


def test_a_column_without_images_is_refused(dataset: Path) -> None:
    with pytest.raises(UserError, match=r"images\.column: 'label' of .* holds no images"):
        hub_source(dataset, column="label")


def test_an_unknown_split_or_data_set_is_refused(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"images\.name: cannot load split 'dev'"):
        hub_source(dataset, split="dev")
    with pytest.raises(UserError, match=r"images\.name: cannot load"):
        hub_source(tmp_path / "nowhere")


def test_bytes_are_read_like_files(tmp_path: Path) -> None:
    photograph(tmp_path / "a.png", 0)
    assert rgb(BytesIO((tmp_path / "a.png").read_bytes())).tobytes() == rgb(tmp_path / "a.png").tobytes()
