"""Anyone's own benchmark: rows of image, question and answer in a JSONL or Parquet file, and their graders."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from holdfast.benchmarks.grading import GRADERS, WANTED
from holdfast.benchmarks.writing import majority
from holdfast.config import Imported
from holdfast.data.images import UNREADABLE, rgb
from holdfast.data.shards import Question, png
from holdfast.data.world import generator
from holdfast.errors import UserError

COLUMNS = ("image", "question", "answer")
OPTIONAL = ("grader", "reasoning")
VALIDATION = 64
"""Questions that are set apart at most."""


def read_imported(benchmark: Imported) -> Iterator[Question]:
    """Questions row by row; refuses the first row that is incomplete, by its number (the first row is 1)."""
    row = None
    for row in _rows(benchmark):
        yield _question(row, benchmark)
    if row is None:
        raise UserError(f"{benchmark.path}: holds no question; add rows of image, question and answer.")


def splits(benchmark: Imported, seed: int) -> Iterator[tuple[str, Iterator[Question]]]:
    """Test questions, then validation ones: of a file of their own, or set apart by image.

    Raises:
        UserError: too few images to set some apart.
    """
    if benchmark.validation_path is not None:
        yield "test", read_imported(benchmark)
        yield "validation", read_imported(_validation(benchmark))
        return
    apart = _set_apart(benchmark, seed)
    kept: list[Question] = []

    def tested() -> Iterator[Question]:
        for question in read_imported(benchmark):
            if question.id not in apart:
                yield question
            else:
                kept.append(question)

    yield "test", tested()
    yield "validation", iter(kept)


def _validation(benchmark: Imported) -> Imported:
    return benchmark.model_copy(update={"path": benchmark.validation_path})


def _set_apart(benchmark: Imported, seed: int) -> set[str]:
    """Ids of the questions about a tenth of the images, at least two of these, and at most VALIDATION questions.

    Of fewer than four images, single questions are set apart.
    """
    asked: dict[bytes, list[str]] = {}
    for question in read_imported(benchmark):
        asked.setdefault(hashlib.sha256(b"".join(question.images)).digest(), []).append(question.id)
    groups = list(asked.values()) if len(asked) >= 4 else [[name] for names in asked.values() for name in names]
    if len(groups) < 2:
        raise UserError(
            f"{benchmark.path}: holds one question, and needs another one for validation; add some, or name a file of "
            f"validation questions in validation_path."
        )
    wanted = max(2 if len(groups) >= 4 else 1, len(groups) // 10)
    apart: set[str] = set()
    for number, place in enumerate(generator("validation", seed, benchmark.name).permutation(len(groups))[:wanted]):
        if number >= 2 and len(apart) + len(groups[place]) > VALIDATION:
            break
        apart.update(groups[place])
    return apart


def input_files(benchmark: Imported) -> list[tuple[str, Path]]:
    """The benchmark's files and the images that their rows name, by name."""
    found = _input_files(benchmark)
    if benchmark.validation_path is not None:
        found += [(f"validation:{name}", path) for name, path in _input_files(_validation(benchmark))]
    return found


def _input_files(benchmark: Imported) -> list[tuple[str, Path]]:
    folder = benchmark.path.parent
    named = {row.values.get("image") for row in _rows(benchmark)} if benchmark.path.suffix == ".jsonl" else set()
    images = sorted(name for name in named if isinstance(name, str) and (folder / name).is_file())
    return [("", benchmark.path), *((name, folder / name) for name in images)]


class Row(NamedTuple):
    """A row of the user's file, and what to call it in an error."""

    number: int
    place: str
    values: dict[str, Any]


def _rows(benchmark: Imported) -> Iterator[Row]:
    path = benchmark.path
    if path.suffix not in {".jsonl", ".parquet"}:
        raise UserError(f"prior: {path} is neither .jsonl nor .parquet; convert it and correct its path.")
    if not path.is_file():
        raise UserError(f"prior: {path} of benchmark {benchmark.name!r} does not exist; correct its path.")
    return _parquet_rows(path) if path.suffix == ".parquet" else _json_rows(path)


def _json_rows(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            place = f"{path}, row {number}"
            if not line.strip():
                continue
            try:
                values = json.loads(line)
            except ValueError as error:
                raise UserError(f"{place}: is no JSON ({error}); write one object a line.") from error
            if not isinstance(values, dict):
                raise UserError(f"{place}: is no JSON object; write one with image, question and answer.")
            yield Row(number, place, values)


def _parquet_rows(path: Path) -> Iterator[Row]:
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: cannot be read as Parquet ({error}); write the file again.") from error
    with file:
        names = file.schema_arrow.names
        for column in COLUMNS:
            if column not in names:
                raise UserError(f"{path}: has no column {column!r}; add it, the file has {', '.join(names)}.")
        number = 0
        for batch in file.iter_batches(64, columns=[name for name in (*COLUMNS, *OPTIONAL) if name in names]):
            for values in batch.to_pylist():
                number += 1
                yield Row(number, f"{path}, row {number}", values)


def _question(row: Row, benchmark: Imported) -> Question:
    for column in COLUMNS:
        if column not in row.values:
            raise UserError(f"{row.place}: has no {column!r}; add it.")
    grader = str(row.values.get("grader") or benchmark.grader)
    if grader not in GRADERS:
        raise UserError(f"{row.place}: grader {grader!r} is unknown; use one of {', '.join(GRADERS)}.")
    accepted = _answers(row, grader)
    answer = majority(accepted)
    reference = f"<answer> {answer} </answer>"
    return Question(
        id=f"{benchmark.name}-{row.number:06d}",
        image_id=f"{benchmark.name}/{row.number:06d}",
        images=(_image(row, benchmark.path.parent),),
        prompt=_text(row, "question"),
        answer=answer,
        reference=reference,
        grader=grader,
        benchmark=benchmark.name,
        teacher=f"<think> {_text(row, 'reasoning')} </think> {reference}" if row.values.get("reasoning") else "",
        accepted=accepted if len(accepted) > 1 else (),
    )


def _answers(row: Row, grader: str) -> tuple[str, ...]:
    """All accepted answers as text, each one that its own grader accepts."""
    parts = [part for part in _parts(row.values["answer"], grader) if not _blank(part)] or [None]
    found = tuple(_text(row._replace(values={**row.values, "answer": part}), "answer") for part in parts)
    for answer in found:
        if not GRADERS[grader](f"<answer> {answer} </answer>", answer).correct:
            wanted = WANTED.get(grader, "text without <")
            raise UserError(
                f"{row.place}: answer {answer!r:.60} cannot be graded by {grader!r}; write {wanted} or another grader."
            )
    return found


def _parts(value: Any, grader: str) -> list[Any]:
    """The accepted answers of a cell: the elements of a list, but for the sides of a box and the boxes of a picture."""
    if isinstance(value, dict) and grader not in ("box", "detection"):
        value = value.get("answer", value)
    if not isinstance(value, list):
        return [json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value]
    if grader not in ("box", "detection"):
        # VQAv2 has a struct an annotator.
        return [part.get("answer", part) if isinstance(part, dict) else part for part in value]
    if all(isinstance(side, int | float) or (isinstance(side, str) and _is_side(side)) for side in value):
        return [value]
    points = all(isinstance(part, list) and len(part) == 2 for part in value)
    boxes = [value] if grader == "detection" or points else value
    return [part if isinstance(part, str) or _flat(part) else json.dumps(part, ensure_ascii=False) for part in boxes]


def _flat(value: Any) -> bool:
    return isinstance(value, list) and not any(isinstance(part, list | dict | str) for part in value)


def _is_side(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _blank(value: Any) -> bool:
    """Nothing, or NaN, in a list of answers."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def _text(row: Row, column: str) -> str:
    value = row.values[column]
    if isinstance(value, list):
        value = " ".join(str(part) for part in value)
    text = "" if value is None else str(value).strip()
    if not text:
        raise UserError(f"{row.place}: {column} is empty; fill it in or remove the row.")
    return text


def _image(row: Row, folder: Path) -> bytes:
    value = row.values["image"]
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if not isinstance(value, str | bytes) or not value:
        raise UserError(f"{row.place}: image is empty; give the path of an image, or its bytes.")
    try:
        return png(rgb(BytesIO(value) if isinstance(value, bytes) else folder / value))
    except UNREADABLE as error:
        name = value if isinstance(value, str) else "bytes"
        raise UserError(f"{row.place}: image ({name}) cannot be read; replace it or remove the row.") from error
