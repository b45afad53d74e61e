"""Anyone's own benchmark: rows of image, question and answer in a JSONL or Parquet file, and their graders."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from holdfast.benchmarks.answers import UNPARSED, Grade, answer_text, overlap
from holdfast.config import Imported
from holdfast.data.images import UNREADABLE, rgb
from holdfast.data.shards import Question, png
from holdfast.data.world import generator
from holdfast.errors import UserError

_NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)
COLUMNS = ("image", "question", "answer")
OPTIONAL = ("grader", "reasoning")
VALIDATION = 64
"""Questions that are set apart at most."""


def exact(completion: str, answer: str) -> Grade:
    """The same text, whatever its case, spacing and final full stop."""
    text = answer_text(completion)
    if text is None:
        return UNPARSED
    return _verdict(text, _plain(text) == _plain(answer))


def number(completion: str, answer: str) -> Grade:
    """The one number in the answer, equal within 1e-6 of its size."""
    text = answer_text(completion)
    found = _numbers(text) if text else []
    if len(found) != 1:
        return UNPARSED
    return _verdict(f"{found[0]:g}", math.isclose(found[0], _numbers(answer)[0], rel_tol=1e-6, abs_tol=1e-9))


def choice(completion: str, answer: str) -> Grade:
    """The letter of an option, alone or before its text: B, (B), B. red."""
    letter = _letter(answer_text(completion) or "")
    return UNPARSED if letter is None else _verdict(letter, letter == _letter(answer))


def box(completion: str, answer: str) -> Grade:
    """Corners x1, y1, x2, y2 with IoU ≥ 0.5; the score is the IoU."""
    text = answer_text(completion)
    given = _sides(text) if text else []
    if len(given) != 4:
        return UNPARSED
    iou = overlap(given, _sides(answer))
    return Grade(" ".join(f"{side:g}" for side in given), iou >= 0.5, iou)


def contains(completion: str, answer: str) -> Grade:
    """The answer stands in the text as whole words."""
    text = answer_text(completion)
    if text is None:
        return UNPARSED
    return _verdict(text, bool(re.search(rf"(?<!\w){re.escape(_plain(answer))}(?!\w)", _plain(text))))


GRADERS = {"exact": exact, "number": number, "choice": choice, "box": box, "contains": contains}


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
    answer = _answer(row, grader)
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
    )


def _answer(row: Row, grader: str) -> str:
    """The answer as text, one that its own grader accepts."""
    answer = _text(row, "answer")
    if not GRADERS[grader](f"<answer> {answer} </answer>", answer).correct:
        wanted = {
            "number": "a number",
            "choice": "the letter of an option",
            "box": "a box x1 y1 x2 y2 with x1 < x2 and y1 < y2",
        }.get(grader, "text without <")
        raise UserError(
            f"{row.place}: answer {answer!r} cannot be graded by {grader!r}; write {wanted} or another grader."
        )
    return answer


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


def _verdict(parsed: str, correct: bool) -> Grade:
    return Grade(parsed, correct, float(correct))


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".")


def _numbers(text: str) -> list[float]:
    """All numbers in a text; a comma before three digits is part of a number."""
    return _sides(re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text))


def _sides(text: str) -> list[float]:
    return [float(found) for found in _NUMBER.findall(text)]


def _letter(text: str) -> str | None:
    """The option's letter; one that starts a word is none."""
    found = re.match(r"\s*[(\[]?([A-Za-z])(?:[)\].:]|\s*$)", text)
    return found[1].upper() if found else None
