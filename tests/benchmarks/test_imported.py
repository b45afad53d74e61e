"""Benchmarks of one's own, from JSONL and Parquet."""

import base64
import json
from datetime import date
from decimal import Decimal
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from holdfast.benchmarks import catalog, imported
from holdfast.benchmarks.catalog import GRADERS
from holdfast.benchmarks.dataset import inputs_digest
from holdfast.config.images import World
from holdfast.config.prior import Imported
from holdfast.data import tables
from holdfast.data.shards import read_questions, write_questions
from holdfast.errors import UserError

ROW = {"image": "a.png", "question": "What is it?", "answer": "a square"}


def image_bytes(shade: int = 128) -> bytes:
    buffer = BytesIO()
    Image.new("L", (20, 10), shade).save(buffer, "JPEG")
    return buffer.getvalue()


def jsonl(folder: Path, *rows: object) -> Imported:
    Image.new("RGB", (8, 8), "red").save(folder / "a.png")
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    (folder / "own.jsonl").write_text("\n".join(lines) + "\n")
    return Imported(name="own", path=folder / "own.jsonl")


def parquet(folder: Path, **columns: list) -> Imported:
    pq.write_table(pa.table(columns), folder / "own.parquet")
    return Imported(name="own", path=folder / "own.parquet")


def graded(grader: str, text: str, answer: str) -> tuple[bool | None, float]:
    grade = GRADERS[grader](f"<think> hm </think> <answer> {text} </answer>", answer)
    return (None if grade.parsed is None else grade.correct), grade.score


def test_rows_of_jsonl_become_questions_with_their_graders(tmp_path: Path) -> None:
    rows = [ROW, {**ROW, "answer": 3, "grader": "number"}, {**ROW, "answer": [1, 2, 5, 6], "grader": "box"}]
    questions = list(imported.read_imported(jsonl(tmp_path, *rows)))
    assert [(q.id, q.grader, q.answer, q.benchmark) for q in questions] == [
        ("own-000001", "exact", "a square", "own"),
        ("own-000002", "number", "3", "own"),
        ("own-000003", "box", "1 2 5 6", "own"),
    ]
    assert Image.open(BytesIO(questions[0].images[0])).getpixel((0, 0)) == (255, 0, 0)
    assert all(GRADERS[q.grader](q.reference, q.answer).correct for q in questions)


def test_a_tenth_of_the_images_is_set_apart_with_all_its_questions(tmp_path: Path) -> None:
    images = [image_bytes(5 * shade) for shade in range(50) for _ in range(2)]
    own = parquet(tmp_path, image=images, question=["?"] * 100, answer=["x"] * 100)
    found = {split: list(questions) for split, questions in imported.splits(own, seed=0)}
    assert {split: len(questions) for split, questions in found.items()} == {"test": 90, "validation": 10}
    shown = {split: {question.images for question in questions} for split, questions in found.items()}
    assert not shown["test"] & shown["validation"]
    again = {split: [q.id for q in questions] for split, questions in imported.splits(own, seed=0)}
    assert again == {split: [q.id for q in questions] for split, questions in found.items()}
    assert again != {split: [q.id for q in questions] for split, questions in imported.splits(own, seed=1)}


def test_of_one_picture_single_questions_are_set_apart(tmp_path: Path) -> None:
    found = {split: list(given) for split, given in imported.splits(jsonl(tmp_path, *[ROW] * 5), seed=0)}
    assert {split: len(questions) for split, questions in found.items()} == {"test": 3, "validation": 2}
    with pytest.raises(UserError, match=r"own\.jsonl: holds one question, and needs another one for validation"):
        list(imported.splits(jsonl(tmp_path, ROW), seed=0))


def test_validation_questions_may_come_from_a_file_of_their_own(tmp_path: Path) -> None:
    own = jsonl(tmp_path, ROW, ROW)
    (tmp_path / "more.jsonl").write_text(json.dumps({**ROW, "answer": "other"}))
    own = own.model_copy(update={"validation_path": tmp_path / "more.jsonl"})
    found = {split: [question.answer for question in given] for split, given in imported.splits(own, seed=0)}
    assert found == {"test": ["a square"] * 2, "validation": ["other"]}
    assert "validation:" in dict(imported.input_files(own))


def test_a_list_of_answers_accepts_any_of_them_and_teaches_the_one_most_gave(tmp_path: Path) -> None:
    people = [{"answer": answer, "answer_id": number} for number, answer in enumerate(["no", "yes", "yes"])]
    rows = [
        {**ROW, "answer": ["no", "yes", "yes", None, ""]},
        {**ROW, "answer": people},
        {**ROW, "answer": [3, 4.5], "grader": "number"},
        {**ROW, "answer": ["A", "B"], "grader": "choice"},
        {**ROW, "answer": [[1, 2, 5, 6], [2, 2, 6, 6]], "grader": "box"},
        {**ROW, "answer": ["yes"] * 10, "grader": "vqa"},
    ]
    found = list(imported.read_imported(jsonl(tmp_path, *rows)))
    assert [(question.answer, question.accepted) for question in found] == [
        ("yes", ("no", "yes", "yes")),
        ("yes", ("no", "yes", "yes")),
        ("3", ("3", "4.5")),
        ("A", ("A", "B")),
        ("1 2 5 6", ("1 2 5 6", "2 2 6 6")),
        ("yes", ("yes",) * 10),
    ]
    assert found[0].reference == "<answer> yes </answer>"
    for question in found:
        assert all(
            catalog.grade(question.grader, f"<answer> {answer} </answer>", question.answer, question.accepted).correct
            for answer in question.accepted
        )


def test_lists_of_answers_in_parquet_are_read_and_kept_in_the_shard(tmp_path: Path) -> None:
    answers = [["x"], ["no", "yes", "yes"]] + [["x"]] * 128
    own = parquet(tmp_path, image=[image_bytes()] * 130, question=["?"] * 130, answer=answers)
    written = list(imported.read_imported(own))
    assert write_questions(tmp_path / "wide.parquet", written) == 130
    assert read_questions(tmp_path / "wide.parquet") == written
    assert written[1].accepted == ("no", "yes", "yes")
    plain = [question._replace(accepted=()) for question in written]
    write_questions(tmp_path / "narrow.parquet", plain)
    assert "accepted" not in pq.read_schema(tmp_path / "narrow.parquet").names
    assert read_questions(tmp_path / "narrow.parquet") == plain
    assert sorted(path.name for path in tmp_path.glob("*.parquet*")) == [
        "narrow.parquet",
        "own.parquet",
        "wide.parquet",
    ]


@pytest.mark.parametrize(
    ("answer", "grader", "kept"),
    [
        ([1, 2, 5, 6], "box", "1 2 5 6"),
        (["1", "2", "5", "6"], "box", "1 2 5 6"),
        ([[1, 2, 5, 6]], "box", "1 2 5 6"),
        ([[1, 2], [5, 6]], "box", "[[1, 2], [5, 6]]"),
        ({"bbox_2d": [1, 2, 5, 6], "label": "person 2"}, "box", '{"bbox_2d": [1, 2, 5, 6], "label": "person 2"}'),
        ([{"bbox_2d": [1, 2, 5, 6], "label": "2"}], "box", '{"bbox_2d": [1, 2, 5, 6], "label": "2"}'),
        ({"x1": 1, "y1": 2, "x2": 5, "y2": 6}, "box", '{"x1": 1, "y1": 2, "x2": 5, "y2": 6}'),
        ([[1, 2, 5, 6], [7, 8, 9, 9]], "detection", "[[1, 2, 5, 6], [7, 8, 9, 9]]"),
    ],
)
def test_boxes_of_a_file_may_be_lists_and_objects(tmp_path: Path, answer: object, grader: str, kept: str) -> None:
    (question,) = imported.read_imported(jsonl(tmp_path, {**ROW, "answer": answer, "grader": grader}))
    assert (question.answer, question.accepted) == (kept, ())
    found = GRADERS[grader](question.reference, question.answer)
    assert (found.correct, found.score) == (True, 1.0)
    assert found.parsed in ("1 2 5 6", "1 2 5 6; 7 8 9 9")


@pytest.mark.parametrize("wrap", [lambda data: data, lambda data: {"bytes": data, "path": None}])
def test_parquet_with_bytes_or_the_struct_of_datasets_is_read(tmp_path: Path, wrap) -> None:  # type: ignore[no-untyped-def]
    own = parquet(tmp_path, image=[wrap(image_bytes())] * 130, question=["?"] * 130, answer=["x"] * 130)
    questions = list(imported.read_imported(own))
    assert len(questions) == 130
    assert questions[-1].id == "own-000130"
    assert Image.open(BytesIO(questions[0].images[0])).size == (20, 10)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"image": "a.png", "question": "?"}, r"own\.jsonl, row 2: has no 'answer'; add it"),
        ({**ROW, "answer": "  "}, "row 2: answer is empty"),
        ({**ROW, "answer": None}, "row 2: answer is empty"),
        ({**ROW, "answer": []}, "row 2: answer is empty"),
        ({**ROW, "answer": [None, ""]}, "row 2: answer is empty"),
        ({**ROW, "answer": [3, "many"], "grader": "number"}, "row 2: answer 'many' cannot be graded by 'number'"),
        ({**ROW, "answer": "A or B", "grader": "choice"}, "row 2: answer 'A or B' cannot be graded by 'choice'"),
        ({**ROW, "question": ""}, "row 2: question is empty"),
        ({**ROW, "grader": "judge"}, "row 2: grader 'judge' is unknown; use one of exact, number"),
        ({**ROW, "image": "b.png"}, r"row 2: image \(b\.png\) cannot be read"),
        ({**ROW, "image": ""}, "row 2: image is empty"),
        ({**ROW, "grader": "number"}, "row 2: answer 'a square' cannot be graded by 'number'"),
        ({**ROW, "grader": "box", "answer": "5 5 1 1"}, "row 2: answer '5 5 1 1' cannot be graded by 'box'"),
        ('{"image": ', "row 2: is no JSON"),
        ("[1]", "row 2: is no JSON object"),
    ],
)
def test_a_bad_row_is_named_with_file_row_and_remedy(tmp_path: Path, row: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        list(imported.read_imported(jsonl(tmp_path, ROW, row)))


TEXT = {"question": "2 + 2?", "answer": 4, "grader": "number", "reasoning": "I add."}


def test_rows_of_text_alone_become_questions_without_images(tmp_path: Path) -> None:
    own = jsonl(tmp_path, *({**TEXT, "question": f"{number} + 2?"} for number in range(8)))
    assert [name for name, _ in imported.input_files(own)] == [""]
    found = {split: list(questions) for split, questions in imported.splits(own, 0)}
    assert [len(found[split]) for split in ("test", "validation")] == [6, 2]
    assert {question.images for questions in found.values() for question in questions} == {()}
    [question] = imported.read_imported(parquet(tmp_path, question=["2 + 2?"], answer=["4"]))
    assert (question.images, question.answer) == ((), "4")


def test_a_misspelt_image_makes_no_question_of_text(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="row 1: has no 'image'; add it"):
        list(imported.read_imported(jsonl(tmp_path, {**TEXT, "img": "a.png"})))
    with pytest.raises(UserError, match="row 1: has no 'image'; add it"):
        list(imported.read_imported(jsonl(tmp_path, TEXT, ROW)))
    with pytest.raises(UserError, match=r"own\.parquet: has no column 'image'; add it"):
        list(imported.read_imported(parquet(tmp_path, img=[b""], question=["?"], answer=["x"])))


def test_a_parquet_file_without_a_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"own\.parquet: has no column 'answer'; add it"):
        list(imported.read_imported(parquet(tmp_path, image=[b""], question=["?"])))


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own.parquet").write_bytes(b"not")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        list(imported.read_imported(Imported(name="own", path=tmp_path / "own.parquet")))


@pytest.mark.parametrize(("name", "message"), [("no.jsonl", "is not there"), ("own.csv", "is no JSONL or Parquet")])
def test_a_file_that_is_missing_or_of_another_kind_is_refused(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        list(imported.read_imported(Imported(name="own", path=tmp_path / name)))


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no question"):
        list(imported.read_imported(jsonl(tmp_path, "")))


def table(folder: Path, frame: pd.DataFrame, kind: str) -> Imported:
    """The rows as pandas writes them."""
    Image.new("RGB", (8, 8), "red").save(folder / "a.png")
    path = folder / f"own.{kind}"
    if kind == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_json(path, orient="records", lines=True, date_format="iso")
    return Imported(name="own", path=path)


def answers(own: Imported) -> list[str]:
    return [question.answer for question in imported.read_imported(own)]


def refusal(own: Imported) -> str:
    with pytest.raises(UserError) as error:
        list(imported.read_imported(own))
    assert len(str(error.value)) < 300
    return str(error.value)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ([3.0, 4.0, -0.0], ["3", "4", "0"]),
        ([3.0, 2.5, 1e-7], ["3.0", "2.5", "1e-07"]),
        (np.array([0.1, 2.5, 3], np.float32), ["0.1", "2.5", "3.0"]),
        (np.array([1, 2, 3], np.int8), ["1", "2", "3"]),
        ([Decimal("3.00"), Decimal("4.00"), Decimal("2E+2")], ["3", "4", "200"]),
        ([Decimal("3.10"), Decimal("4.00"), Decimal("5.00")], ["3.10", "4.00", "5.00"]),
        ([True, False, True], ["true", "false", "true"]),
        ([[0.5, 1.0], [2.0, 3.0], [1.0]], ["0.5", "2.0", "1.0"]),
        ([[10.0, 20.0], [2.0, 3.0], [1.0]], ["10", "2", "1"]),
        (
            pd.to_datetime(["2026-02-03", "2026-02-04 10:30", "2026-12-01"], format="mixed"),
            ["2026-02-03", "2026-02-04 10:30:00", "2026-12-01"],
        ),
        ([date(2026, 2, 3)] * 3, ["2026-02-03"] * 3),
        (pd.Categorical(["a", "b", "a"]), ["a", "b", "a"]),
    ],
)
def test_answers_are_read_as_they_were_meant(tmp_path: Path, given: object, read: list[str]) -> None:
    frame = pd.DataFrame({"image": ["a.png"] * 3, "question": ["?"] * 3, "answer": given})
    assert answers(table(tmp_path, frame, "parquet")) == read


def test_whole_numbers_of_a_column_that_misses_some_are_whole(tmp_path: Path) -> None:
    """A column with a missing value becomes fractions in pandas, and stays so once the row is dropped."""
    frame = pd.DataFrame({"image": ["a.png"] * 3, "question": ["?"] * 3, "answer": [3, None, 12]}).dropna()
    for kind in ("parquet", "jsonl"):
        assert answers(table(tmp_path, frame, kind)) == ["3", "12"]


@pytest.mark.parametrize(
    ("given", "what"), [([1.5, None, np.nan], "empty"), ([1.5, np.inf, -np.inf], "inf, no finite number")]
)
def test_rows_without_a_finite_answer_are_named_and_counted(tmp_path: Path, given: list[object], what: str) -> None:
    frame = pd.DataFrame({"image": ["a.png"] * 3, "question": ["?"] * 3, "answer": given})
    message = refusal(table(tmp_path, frame, "parquet"))
    assert f"own.parquet, row 2: answer is {what}".replace("empty", "") in message or "row 2: answer is nan" in message
    assert message.endswith("fill it in or remove the row (and 1 more such rows).")
    for text in ("NaN", "Infinity", "1e999", "null"):
        own = jsonl(tmp_path, ROW, json.dumps(ROW).replace('"a square"', text))
        assert "row 2: answer is " in refusal(own)


def test_missing_graders_and_reasonings_are_none(tmp_path: Path) -> None:
    missing = {"grader": ["number", None], "reasoning": [np.nan, np.nan]}
    frame = pd.DataFrame({"image": ["a.png"] * 2, "question": ["?"] * 2, "answer": [3, 4], **missing})
    questions = list(imported.read_imported(table(tmp_path, frame, "parquet")))
    assert [(question.grader, question.teacher) for question in questions] == [("number", ""), ("exact", "")]


def red(mode: str = "PNG") -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (20, 10), "red").save(buffer, mode)
    return buffer.getvalue()


BASE64 = base64.b64encode(red()).decode()
PIXELS = np.full((10, 20, 3), (255, 0, 0), np.uint8)


@pytest.mark.parametrize(
    ("cell", "count"),
    [
        ("red.png", 1),
        ("./red.png", 1),
        (f"data:image/png;base64,{BASE64}", 1),
        (f"data:;base64,{BASE64.rstrip('=')}", 1),
        (BASE64, 1),
        ("\n".join(BASE64[at : at + 60] for at in range(0, len(BASE64), 60)), 1),
        (["red.png", BASE64], 2),
        ({"path": "red.png"}, 1),
        ({"bytes": None, "path": "red.png"}, 1),
        ({"bytes": BASE64, "path": None}, 1),
        ([{"path": "red.png"}, {"path": "red.png"}], 2),
        ({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{BASE64}"}}, 1),
        (PIXELS.tolist(), 1),
        ((PIXELS / 255).tolist(), 1),
        ([PIXELS.tolist()] * 2, 2),
        (list(red()), 1),
    ],
)
def test_an_image_may_be_written_in_many_ways(tmp_path: Path, cell: object, count: int) -> None:
    (tmp_path / "red.png").write_bytes(red())
    (question,) = imported.read_imported(jsonl(tmp_path, {**ROW, "image": cell}))
    assert len(question.images) == count
    for image in question.images:
        found = Image.open(BytesIO(image))
        assert (found.size, found.getpixel((19, 9))) == ((20, 10), (255, 0, 0))


@pytest.mark.parametrize(
    "cells",
    [
        [red(), red("GIF")],
        [[red(), red()], [red()]],
        [{"bytes": red(), "path": None}, {"bytes": None, "path": "red.png"}],
        [[{"bytes": red(), "path": None}]] * 2,
        [PIXELS.tolist()] * 2,
        [np.full((10, 20), 7, np.float32).tolist()] * 2,
    ],
)
def test_an_image_column_of_parquet_may_be_of_many_types(tmp_path: Path, cells: list[object]) -> None:
    (tmp_path / "red.png").write_bytes(red())
    questions = list(imported.read_imported(parquet(tmp_path, image=cells, question=["?"] * 2, answer=["x"] * 2)))
    assert {Image.open(BytesIO(image)).size for question in questions for image in question.images} == {(20, 10)}


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        (None, "is empty"),
        (float("nan"), "is empty"),
        ({}, "is empty"),
        ({"bytes": None, "path": None}, "is empty"),
        ([], "is empty"),
        ([None], "is empty"),
        (3, "is 3"),
        ({"width": 3}, "has neither bytes nor path but width"),
        ("https://example.org/a.png", "is an address; download the image"),
        ("s3://bucket/a.png", "is an address"),
        ("data:image/png,abc", "is a data URI without base64"),
        ("data:image/png;base64,####", "is no base64"),
        ("data:image/png;base64,aGVsbG8=", "(bytes) cannot be read (no image)"),
        (base64.b64encode(b"hello" * 99).decode(), "cannot be read"),
        ("x" * 300_000, "cannot be read"),
        ("no\0where.png", "cannot be read"),
        ("\ud800.png", "cannot be read"),
        (".", "cannot be read"),
        ([1, 2, 300], "is a list of numbers that are no bytes"),
        ([1.5, 2.5], "is a list of numbers that are no bytes"),
        ([[1, 2], [3]], "is an array that has rows of unlike lengths"),
        ([[[1, 2], [3, 4]]], "is an array that has the shape 1×2×2"),
        ([[-1, 2], [3, 4]], "is an array that has pixels that are no numbers from 0 to 255"),
        ([[1, 256], [3, 4]], "is an array that has pixels that are no numbers from 0 to 255"),
        ([[1, "a"], [3, 4]], "is an array"),
        (red()[:60].hex(), "cannot be read"),
    ],
)
def test_an_image_that_cannot_be_used_is_a_sentence_with_its_row(tmp_path: Path, cell: object, told: str) -> None:
    own = jsonl(tmp_path, ROW, {**ROW, "image": cell})
    message = refusal(own)
    assert "own.jsonl, row 2: image " in message
    assert told in message
    with pytest.raises(UserError, match="row 2: image"):
        imported.input_files(own) and list(imported.read_imported(own))


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("question", {"text": "?"}, "question is dict; write text"),
        ("question", float("nan"), "question is empty"),
        ("question", "\ud800?", "question has half of a character"),
        ("answer", {"text": "?"}, "answer is dict; write text"),
        ("answer", "<" * 9000, "cannot be graded by"),
        ("grader", "judge" * 9000, "is unknown"),
        ("grader", ["exact", "number"], "is unknown"),
    ],
)
def test_a_text_that_cannot_be_used_is_a_sentence_with_its_row(
    tmp_path: Path, column: str, value: object, told: str
) -> None:
    message = refusal(jsonl(tmp_path, ROW, {**ROW, column: value}))
    assert "own.jsonl, row 2: " in message
    assert told in message


def test_jsonl_may_have_a_byte_order_mark_and_any_line_ends(tmp_path: Path) -> None:
    own = jsonl(tmp_path, ROW)
    own.path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join([json.dumps(ROW).encode()] * 2) + b"\r\n\r\n")
    assert answers(own) == ["a square"] * 2


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (json.dumps(ROW).replace("square", "é").encode("latin-1"), "row 1: is no UTF-8"),
        (json.dumps(ROW).encode("utf-16"), "row 1: is no UTF-8"),
        (b"[" * 99_999, "row 1: is no JSON"),
        (json.dumps([ROW] * 99).encode(), "row 1: is no JSON object"),
    ],
)
def test_a_file_in_another_encoding_or_form_is_a_sentence(tmp_path: Path, content: bytes, told: str) -> None:
    own = jsonl(tmp_path, ROW)
    own.path.write_bytes(content)
    assert told in refusal(own)


def test_a_cut_parquet_file_is_a_sentence(tmp_path: Path) -> None:
    own = parquet(tmp_path, image=["a.png"] * 9999, question=["?"] * 9999, answer=[str(i) for i in range(9999)])
    whole = own.path.read_bytes()
    own.path.write_bytes(whole[: len(whole) // 2])
    assert "own.parquet: cannot be read as Parquet" in refusal(own)
    own.path.write_bytes(whole[:99] + b"\0" * 999 + whole[1098:])
    assert "own.parquet: cannot be read as Parquet" in refusal(own)


@pytest.mark.parametrize("wrap", [str, lambda name: {"bytes": None, "path": name}, lambda name: [name]])
@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_a_changed_picture_is_other_input_whatever_names_it(tmp_path: Path, kind: str, wrap) -> None:  # type: ignore[no-untyped-def]
    rows = pd.DataFrame({"image": [wrap("a.png")] * 2, "question": ["?"] * 2, "answer": ["x"] * 2})
    own = table(tmp_path, rows, kind)
    before = inputs_digest(World(), (own,))
    Image.new("RGB", (8, 8), "blue").save(tmp_path / "a.png")
    assert inputs_digest(World(), (own,)) != before
    (tmp_path / "a.png").unlink()
    with pytest.raises(UserError, match=r"row 1: image \(a\.png\) cannot be read \(no such file\)"):
        inputs_digest(World(), (own,))


def test_images_with_names_in_latin_1_are_read(tmp_path: Path) -> None:
    own = jsonl(tmp_path, {**ROW, "image": "caf\udce9.png"})
    (tmp_path / "a.png").rename(tmp_path / "caf\udce9.png")
    assert inputs_digest(World(), (own,))
    assert len(list(imported.read_imported(own))) == 1


def test_images_named_in_rows_count_as_input(tmp_path: Path) -> None:
    own = jsonl(tmp_path, ROW, ROW)
    assert imported.input_files(own) == [("", own.path), ("a.png", tmp_path / "a.png")]


@pytest.mark.parametrize(
    ("grader", "text", "answer", "verdict"),
    [
        ("exact", "A  Square.", "a square", True),
        ("exact", "a squares", "a square", False),
        ("number", "about 1,234 m", "1234", True),
        ("number", "-2.50", "-2.5", True),
        ("number", "3 or 4", "3", None),
        ("number", "three", "3", None),
        ("choice", "(B)", "B", True),
        ("choice", "b. a red one", "B", True),
        ("choice", "Because", "B", None),
        ("choice", "C", "B", False),
        ("contains", "It is a red car.", "red", True),
        ("contains", "It is not", "no", False),
        ("box", "[100,200,300,400]", "100 200 300 400", True),
        ("box", "0 0 10 4", "0 0 10 10", False),
        ("box", "0 0 10", "0 0 10 10", None),
    ],
)
def test_graders(grader: str, text: str, answer: str, verdict: bool | None) -> None:
    assert graded(grader, text, answer)[0] is verdict


SIDES = st.floats(0, 100, allow_nan=False, width=16)
BOXES = st.tuples(SIDES, SIDES, st.floats(1, 50, width=16), st.floats(1, 50, width=16))


@given(BOXES, BOXES)
def test_box_scores_are_symmetric_shares(one: tuple[float, ...], other: tuple[float, ...]) -> None:
    def text(box: tuple[float, ...]) -> str:
        return f"{box[0]} {box[1]} {box[0] + box[2]} {box[1] + box[3]}"

    correct, score = graded("box", text(one), text(other))
    assert 0.0 <= score <= 1.0
    assert correct == (score >= 0.5)
    assert score == pytest.approx(graded("box", text(other), text(one))[1])
    assert graded("box", text(one), text(one)) == (True, pytest.approx(1.0))


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LONGEST", 2**20)
    own = jsonl(tmp_path, ROW, {**ROW, "question": "x" * 2**20})
    with pytest.raises(UserError, match="row 2: is longer than 1 MiB"):
        list(imported.read_imported(own))
