"""Images from the world, from folders and from data sets."""

import pickle
import struct
import tarfile
import zipfile
import zlib
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import datasets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile

from holdfast.config.images import Folder, Hub, World
from holdfast.data.folder import photographs
from holdfast.data.images import open_source
from holdfast.data.pixels import rgb
from holdfast.data.splits import split_images
from holdfast.data.table_images import UnusableImage, images
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
    splits = split_images(images, counts, seed=0)
    numbers = [number for split in splits.values() for number in split]
    assert len(numbers) == len(set(numbers))
    assert set(numbers) <= set(range(images))
    for name, count in counts.items():
        assert 1 <= len(splits[name]) <= count
    if images >= sum(wanted) + 3:
        assert {name: len(splits[name]) for name in counts} == counts


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


MANY = {"train": 20, "validation": 4, "test": 6}


def check_apart(source, splits: dict[str, list[str]]) -> None:  # type: ignore[no-untyped-def]
    """No split is empty, and no picture is shown twice."""
    shown = {name: [source.load(image_id).tobytes() for image_id in ids] for name, ids in splits.items()}
    assert all(shown.values())
    pictures = [picture for ones in shown.values() for picture in ones]
    assert len(pictures) == len(set(pictures))


def copies(folder: Path, count: int) -> None:
    """Each photograph as two files of the same bytes, in three formats without loss, and turned with a note on it."""
    for index in range(count):
        photograph(folder / f"a{index}.jpg", index)
        (folder / f"b{index}.jpg").write_bytes((folder / f"a{index}.jpg").read_bytes())
        with Image.open(folder / f"a{index}.jpg") as image:
            image.save(folder / f"c{index}.png")
            image.save(folder / f"d{index}.webp", lossless=True)
            exif = Image.Exif()
            exif[0x0112] = 6
            image.transpose(Image.Transpose.ROTATE_90).save(folder / f"e{index}.png", exif=exif)


def test_copies_of_a_photograph_count_once_whatever_their_format(tmp_path: Path) -> None:
    copies(tmp_path, 8)
    source = folder_source(tmp_path)
    splits = source.split(MANY)
    check_apart(source, splits)
    assert sum(map(len, splits.values())) == 8
    assert source.warnings[0].startswith("32 image(s) show what another one shows and are left out: ")
    assert splits == folder_source(tmp_path).split(MANY)


def test_all_tiles_of_a_photograph_and_of_its_copies_are_in_one_split(tmp_path: Path) -> None:
    copies(tmp_path, 8)
    source = folder_source(tmp_path, tile=16, size=16)
    splits = source.split(MANY)
    check_apart(source, splits)
    assert {name: len(ids) for name, ids in splits.items()} == MANY
    seen = [{image_id.partition(".")[0][1:] for image_id in ids} for ids in splits.values()]
    assert sum(map(len, seen)) == len(set.union(*seen))


def test_an_even_tile_that_several_photographs_have_counts_once(tmp_path: Path) -> None:
    for index in range(6):
        photograph(tmp_path / f"{index}.png", index)
        with Image.open(tmp_path / f"{index}.png") as image:
            image.paste("white", (0, 0, 96, 32))
            image.save(tmp_path / f"{index}.png")
    source = folder_source(tmp_path, tile=32, size=32)
    check_apart(source, source.split({"train": 30, "validation": 30, "test": 30}))


def test_without_copies_images_are_split_as_by_number(tmp_path: Path) -> None:
    source = folder_source(album(tmp_path, 12))
    names = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*"))
    splits = split_images(12, COUNTS, seed=0)
    assert source.split(COUNTS) == {name: [names[number] for number in numbers] for name, numbers in splits.items()}
    assert source.warnings == []


def test_pictures_that_look_alike_are_told_and_stay(tmp_path: Path) -> None:
    """Three photographs, one of them compressed to another size as well."""
    for path in photographs(Folder(source="folder")):
        with Image.open(path) as image:
            image.crop((0, 0, 400, 400)).save(tmp_path / f"{path.stem}.png")
    with Image.open(tmp_path / "china.png") as image:
        image.resize((300, 300)).save(tmp_path / "small.jpg", quality=60)
    warnings = set()
    for seed in range(6):
        source = open_source(Folder(source="folder", path=tmp_path), seed)
        splits = source.split({"train": 2, "validation": 1, "test": 1})
        assert sum(map(len, splits.values())) == 4
        apart = not any({"china.png", "small.jpg"} <= set(ids) for ids in splits.values())
        assert len(source.warnings) == apart
        warnings |= set(source.warnings)
    assert all("1 image(s) look like one of another split" in sentence for sentence in warnings)
    assert all("china.png" in sentence and "small.jpg" in sentence for sentence in warnings)


def test_only_a_bounded_number_of_decoded_images_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    album(tmp_path, 12)
    whole = folder_source(tmp_path)
    monkeypatch.setattr("holdfast.data.splits.REMEMBERED", 0)
    again = folder_source(tmp_path)
    splits = whole.split(COUNTS)
    assert splits == again.split(COUNTS)
    for image_id in splits["train"]:
        assert whole.load(image_id).tobytes() == again.load(image_id).tobytes()
    assert (len(whole._kept), len(again._kept)) == (10, 0)


def test_hidden_files_are_no_photographs_and_links_are_followed_once(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "photos", tmp_path / "elsewhere"
    album(folder, 4)
    photograph(elsewhere / "linked.png", 77)
    for hidden in (".ipynb_checkpoints/a.png", "__MACOSX/b.png", "sub0/._00.jpg", ".hidden.png"):
        photograph(folder / hidden, 5)
    (folder / "notes.txt").touch()
    (folder / "more").symlink_to(elsewhere)
    (folder / "circle").symlink_to(folder)
    (elsewhere / "back").symlink_to(folder)
    (folder / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    found = [path.relative_to(folder).as_posix() for path in photographs(Folder(source="folder", path=folder))]
    assert found == ["more/linked.png", "sub0/00.jpg", "sub0/03.jpeg", "sub1/01.PNG", "sub2/02.webp"]
    source = folder_source(folder)
    source.split({"train": 3, "validation": 1, "test": 1})
    assert source.skipped == ["gone.jpg"]
    hidden, others = source.warnings
    assert hidden.startswith("4 hidden file(s) and folder(s) in ")
    assert others.endswith("are left out: notes.txt.")


def test_photographs_smaller_than_a_tile_are_told(tmp_path: Path) -> None:
    album(tmp_path, 4)
    photograph(tmp_path / "small.png", 9, (16, 16))
    source = folder_source(tmp_path, tile=32)
    source.split(COUNTS)
    assert source.warnings == ["1 photograph(s) are smaller than a tile and are left out: small.png."]


def test_names_in_latin_1_are_written_readably(tmp_path: Path) -> None:
    album(tmp_path, 3)
    (tmp_path / "sub0/00.jpg").rename(tmp_path / "sub0/caf\udce9.jpg")
    source = folder_source(tmp_path)
    splits = source.split({"train": 1, "validation": 1, "test": 1})
    assert "sub0/caf\\xe9.jpg" in {image_id for ids in splits.values() for image_id in ids}
    check_apart(source, splits)


def test_equal_rows_of_a_data_set_count_once(tmp_path: Path) -> None:
    cells = []
    for index in range(24):
        photograph(tmp_path / "cell.jpg", index % 8)
        with Image.open(tmp_path / "cell.jpg") as image:
            image.save(tmp_path / "cell.png")
        name = "cell.png" if index >= 16 else "cell.jpg"
        cells.append({"bytes": (tmp_path / name).read_bytes(), "path": None})
    for name in ("cell.jpg", "cell.png"):
        (tmp_path / name).unlink()
    features = datasets.Features({"image": datasets.Image()})
    datasets.Dataset.from_dict({"image": cells}, features=features).to_parquet(tmp_path / "train.parquet")
    source = hub_source(tmp_path, column="image")
    splits = source.split(MANY)
    check_apart(source, splits)
    assert sum(map(len, splits.values())) == 8
    assert source.warnings[0].startswith("16 image(s) show what another one shows")


def png(shape: tuple[int, int, int], rows: list[bytes], palette: bytes = b"", transparent: bytes = b"") -> BytesIO:
    """A PNG file of this width, bit depth and color type, written by hand."""
    width, depth, color = shape

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(rows), depth, color, 0, 0, 0))]
    parts += [chunk(b"PLTE", palette)] if palette else []
    parts += [chunk(b"tRNS", transparent)] if transparent else []
    parts += [chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))), chunk(b"IEND", b"")]
    return BytesIO(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def sixteen(*samples: int) -> bytes:
    return struct.pack(f">{len(samples)}H", *samples)


WHITE = (255, 255, 255)


@pytest.mark.parametrize(
    ("file", "shown"),
    [
        (png((2, 16, 6), [sixteen(0x8000, 0, 0, 0, 0x8000, 0x1234, 0, 0xFFFF)]), [WHITE, (128, 18, 0)]),
        (png((2, 16, 4), [sixteen(0x1000, 0, 0x8000, 0xFFFF)]), [WHITE, (128, 128, 128)]),
        (png((2, 16, 0), [sixteen(0x8001, 0x8000)], transparent=sixteen(0x8001)), [WHITE, (128, 128, 128)]),
        (
            png((2, 16, 2), [sixteen(0x8001, 1, 2, 0x8001, 1, 3)], transparent=sixteen(0x8001, 1, 2)),
            [WHITE, (128, 0, 0)],
        ),
        (png((4, 2, 0), [b"\x1b"], transparent=sixteen(1)), [(0, 0, 0), WHITE, (170, 170, 170), WHITE]),
        (png((2, 4, 0), [b"\x3c"], transparent=sixteen(3)), [WHITE, (204, 204, 204)]),
        (png((2, 1, 0), [b"\x40"], transparent=sixteen(0)), [WHITE, WHITE]),
        (png((2, 1, 0), [b"\x40"], transparent=sixteen(1)), [(0, 0, 0), WHITE]),
        (png((2, 8, 0), [b"\x05\x06"], transparent=sixteen(6)), [(5, 5, 5), WHITE]),
        (png((1, 8, 2), [b"\x05\x06\x07"], transparent=sixteen(5, 6, 7)), [WHITE]),
        (
            png((4, 2, 3), [b"\x1b"], bytes(range(12)), b"\x00\xff\x80"),
            [WHITE, (3, 4, 5), (130, 131, 131), (9, 10, 11)],
        ),
        (png((2, 4, 3), [b"\x01"], bytes(range(6)), b"\xff\x00"), [(0, 1, 2), WHITE]),
        (png((2, 1, 3), [b"\x40"], bytes(range(6)), b"\xff\x00"), [(0, 1, 2), WHITE]),
    ],
)
def test_what_is_transparent_is_white_at_any_depth(file: BytesIO, shown: list[tuple[int, int, int]]) -> None:
    image = rgb(file)
    found = [image.getpixel((x, 0)) for x in range(image.width)]
    assert np.abs(np.array(found) - np.array(shown)).max() <= 1


@pytest.mark.parametrize("suffix", ["webp", "gif", "png"])
def test_of_an_animation_the_first_frame_is_shown(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], lossless=True)
    assert rgb(tmp_path / f"a.{suffix}").getpixel((4, 4)) == (255, 0, 0)


def test_pixels_of_unknown_range_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(ValueError, match="fractions of unknown range"):
        rgb(tmp_path / "a.tiff")


def bomb(width: int, height: int) -> bytes:
    """A PNG of some bytes that says it is huge."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("size", [(10_000, 10_000), (2**31 - 1, 1000), (90_000_000, 1)])
def test_a_decompression_bomb_is_refused_before_a_pixel_is_decoded(
    tmp_path: Path, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[object] = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: decoded.append(self))
    with pytest.raises(Image.DecompressionBombError):
        rgb(BytesIO(bomb(*size)))
    with pytest.raises(UnusableImage, match="cannot be read"):
        images(bomb(*size), tmp_path)
    assert decoded == []


def test_a_bomb_among_photographs_is_skipped_and_named(tmp_path: Path) -> None:
    album(tmp_path, 4)
    (tmp_path / "bomb.png").write_bytes(bomb(10_000, 10_000))
    for options in ({}, {"tile": 32}):
        source = folder_source(tmp_path, **options)
        splits = source.split({"train": 30, "test": 30})
        shown = {image_id: source.load(image_id) for images in splits.values() for image_id in images}
        assert source.skipped == ["bomb.png"]
        assert {name for name, image in shown.items() if image is None} <= {"bomb.png"}


def test_programs_and_unknown_formats_are_no_images(tmp_path: Path) -> None:
    """Pillow would start Ghostscript for PostScript."""
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(out) (w) file\n%%EOF\n"
    with pytest.raises(Image.UnidentifiedImageError):
        rgb(BytesIO(script))
    path = tmp_path / "a.png"
    path.write_bytes(script)
    with pytest.raises(Image.UnidentifiedImageError):
        rgb(path)


@pytest.fixture
def datasets_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path / "cache"
    for name in ("HF_DATASETS_CACHE", "DOWNLOADED_DATASETS_PATH", "EXTRACTED_DATASETS_PATH"):
        monkeypatch.setattr(datasets.config, name, cache / name.lower())
    return cache


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("name", ["../../outside.png", "/tmp/outside.png", "fine2.png"])
def test_an_archive_in_a_data_set_is_never_unpacked(tmp_path: Path, datasets_cache: Path, kind: str, name: str) -> None:
    place = tmp_path / "a" / "b" / "data"
    photograph(tmp_path / "x.jpg", 0)
    place.mkdir(parents=True)
    names = ["fine0.png", "fine1.png", name]
    if kind == "zip":
        with zipfile.ZipFile(place / "images.zip", "w") as archive:
            for inside in names:
                archive.write(tmp_path / "x.jpg", inside)
    else:
        with tarfile.open(place / "images.tar", "w") as archive:
            for inside in names:
                archive.add(tmp_path / "x.jpg", inside)
    with suppress(UserError):
        source = hub_source(place, column="image" if kind == "zip" else "png")
        for image in source.split({"train": 2, "test": 1})["train"]:
            source.load(image)
    assert not Path("/tmp/outside.png").exists()
    assert not list(tmp_path.rglob("*.png"))


@pytest.mark.parametrize("name", ["data.py", "train.pkl"])
def test_a_script_or_a_pickle_in_a_data_set_never_runs(tmp_path: Path, datasets_cache: Path, name: str) -> None:
    place = tmp_path / "data"
    place.mkdir()
    ran = tmp_path / "ran"

    class Bomb:
        def __reduce__(self) -> object:
            return (Path.touch, (ran,))

    script = f"import pathlib\npathlib.Path({str(ran)!r}).touch()\n"
    (place / name).write_bytes(script.encode() if name.endswith(".py") else pickle.dumps(Bomb()))
    with pytest.raises(UserError, match=r"images\.name: cannot load"):
        hub_source(place)
    assert not ran.exists()
