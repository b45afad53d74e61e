"""Public data sets: local copies of the same schema give the rows that the mapping promises."""

from __future__ import annotations

import re
from pathlib import Path

import datasets
import numpy as np
import public_sets
import pytest
from PIL import Image

from holdfast.benchmarks.catalog import grade
from holdfast.benchmarks.public import refcoco
from holdfast.benchmarks.public.rows import KNOWN, PublicRows, columns_of
from holdfast.benchmarks.question import Draw
from holdfast.benchmarks.targets import spatial
from holdfast.config.targets import Columns, Public, Spatial
from holdfast.errors import UserError


def rows(folder: Path, name: str, split: str, **options: object) -> PublicRows:
    """The rows of a local copy, read by the mapping of the data set that it copies."""
    columns = KNOWN[public_sets.NAMES[name]]
    return PublicRows(Public(name=str(folder), columns=columns, **options), split)


def row(found: PublicRows, index: int):  # type: ignore[no-untyped-def]
    read = found.row(index, np.random.default_rng(index))
    assert read is not None
    return read


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("public")
    return {name: getattr(public_sets, name)(folder / name) for name in public_sets.NAMES}


def test_every_target_that_can_be_public_has_a_known_data_set() -> None:
    # That of text alone is in tests/benchmarks/targets/test_arithmetic.py.
    assert set(KNOWN) - {"openai/gsm8k", "lmms-lab-encoder/RefCOCO"} == set(public_sets.NAMES.values())


def test_a_data_set_that_a_benchmark_reads_is_known_as_a_target_too() -> None:
    assert columns_of(Public(name=refcoco.SOURCES["refcoco"].id)) == KNOWN["lmms-lab/RefCOCO"]


def test_aircraft_have_variants_by_name_and_lose_the_photographers_line(copies: dict[str, Path]) -> None:
    found = rows(copies["aircraft"], "aircraft", "train")
    read = row(found, 1)
    assert (read.label, read.labels) == ("737-700", tuple(public_sets.VARIANTS))
    assert read.images[0].size == (100, 60)
    assert len(found) == 24


def test_sat_has_one_or_two_images_a_question_and_its_options(copies: dict[str, Path]) -> None:
    found = rows(copies["sat"], "sat", "val")
    assert [len(row(found, index).images) for index in (0, 1)] == [1, 2]
    read = row(found, 2)
    assert (read.question, read.options, read.answer) == ("How did the camera rotate (2)?", ("left", "right"), "right")
    assert read.label == "ego_movement"


def test_coco_boxes_are_corners_in_pixels(copies: dict[str, Path]) -> None:
    read = row(rows(copies["coco"], "coco", "val"), 0)
    assert read.categories == ("dog", "person", "dog")
    assert read.boxes == ((0.25, 0.25, 0.75, 0.75), (0.0, 0.0, 0.1, 1.0), (0.5, 0.5, 1.0, 1.0))


def test_refcoco_boxes_are_corner_and_size_and_one_expression_is_drawn(copies: dict[str, Path]) -> None:
    found = rows(copies["refcoco"], "refcoco", "testA")
    assert row(found, 0).boxes == ((0.25, 0.25, 0.75, 0.75),)
    assert {row(found, index).caption.split()[0] for index in range(20)} == {"man", "person"}


def test_boxes_in_shares_and_structs_in_lists_are_read_as_well(tmp_path: Path) -> None:
    box = datasets.List(datasets.Value("float64"))
    features = datasets.Features(
        {"photo": datasets.Image(), "things": datasets.List({"name": datasets.Value("string"), "box": box})}
    )
    things = [{"name": "cat", "box": [0.5, 0.5, 0.25, 0.75]}, {"name": "dog", "box": [0.0, 0.0, 1.0, 1.0]}]
    public_sets.write(tmp_path / "own", features, {"train": [{"photo": public_sets.photograph(0), "things": things}]})
    columns = Columns(image="photo", boxes="things.box", categories="things.name", box_unit="share")
    read = row(PublicRows(Public(name=str(tmp_path / "own"), columns=columns), "train"), 0)
    assert read.categories == ("cat", "dog")
    assert read.boxes == ((0.5, 0.5, 0.75, 1.0), (0.0, 0.0, 1.0, 1.0))


def test_large_images_are_scaled_down_and_boxes_stay_where_they_are(copies: dict[str, Path]) -> None:
    read = row(rows(copies["coco"], "coco", "val", size=50), 0)
    assert read.images[0].size == (50, 40)
    assert read.boxes[0] == (0.25, 0.25, 0.75, 0.75)
    assert row(rows(copies["coco"], "coco", "val", size=500), 0).images[0].size == (100, 80)


def test_a_damaged_image_is_no_row(tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Image(decode=False), "caption": datasets.Value("string")})
    cell = {"bytes": b"damaged", "path": None}
    made = datasets.Dataset.from_list([{"image": cell, "caption": "Two dogs"}], features=features)
    (tmp_path / "own").mkdir()
    made.cast_column("image", datasets.Image(decode=False)).to_parquet(tmp_path / "own" / "train.parquet")
    found = PublicRows(Public(name=str(tmp_path / "own"), columns=Columns(caption="caption")), "train")
    assert found.row(0, np.random.default_rng(0)) is None


def test_an_unknown_data_set_needs_its_columns() -> None:
    with pytest.raises(
        UserError, match=r"the columns of owner/data are not known; say them in target\.public\.columns"
    ):
        columns_of(Public(name="owner/data"))


def test_a_missing_column_or_split_is_named(copies: dict[str, Path]) -> None:
    public = Public(name=str(copies["coco"]), columns=Columns(label="variant"))
    with pytest.raises(UserError, match=r"target\.public\.columns\.label: .* no column 'variant'; it has image_id"):
        PublicRows(public, "train")
    with pytest.raises(UserError, match=r"target\.public: cannot load split 'test'"):
        PublicRows(public, "test")


def test_two_directories_of_one_name_are_not_taken_for_each_other(tmp_path: Path) -> None:
    for place, variants in (("here", 6), ("there", 9)):
        public_sets.aircraft(tmp_path / place / "aircraft", variants)
    found = [rows(tmp_path / place / "aircraft", "aircraft", "test") for place in ("here", "there")]
    assert [len(split) for split in found] == [6, 9]


def test_images_may_be_bytes_without_a_type(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    content = public_sets.photograph(3, "PNG")["bytes"]
    pq.write_table(pa.table({"image": [[content, content]], "caption": [["Two dogs"]]}), tmp_path / "train.parquet")
    read = row(PublicRows(Public(name=str(tmp_path), columns=Columns(caption="caption")), "train"), 0)
    assert [image.size for image in read.images] == [public_sets.SIZE] * 2
    assert isinstance(read.images[0], Image.Image)


def test_lists_of_answers_are_accepted_answers_and_most_annotators_are_learned_from(tmp_path: Path) -> None:
    text = datasets.Value("string")
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "question": text,
            "options": datasets.List(text),
            "texts": datasets.List(text),
            "people": [{"answer": text, "answer_id": datasets.Value("int64")}],
        }
    )
    given = ["left", "right", "right", "up"]
    cells = {"image": public_sets.photograph(0), "question": "Where?", "options": ["left", "right", "down"]}
    people = [{"answer": answer, "answer_id": number} for number, answer in enumerate(given)]
    folder = public_sets.write(tmp_path / "vqa", features, {"train": [{**cells, "texts": given, "people": people}]})
    for column in ("texts", "people", "people.answer"):
        columns = Columns(question="question", options="options", answer=column)
        read = row(PublicRows(Public(name=str(folder), columns=columns), "train"), 0)
        assert (read.answer, read.accepted) == ("right", tuple(given))
    question = spatial.read(read, Spatial(benchmark="spatial"), Draw(0, "train", 0))
    assert question is not None
    shown = re.findall(r"([A-C])\. (\w+)", question.prompt)
    named = {option: letter for letter, option in shown}
    assert question.answer == named["right"]
    assert question.accepted == (named["left"], named["right"])
    question = question.with_completions("x", Spatial(benchmark="spatial"))
    assert grade("choice", f"<answer> {named['left']} </answer>", question.answer, question.accepted).correct
    assert not grade("choice", f"<answer> {named['down']} </answer>", question.answer, question.accepted).correct
