"""Anyone's own benchmark: rows of image, question and answer in a JSONL or Parquet file, and their graders."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from holdfast.benchmarks.answers import UNPARSED, Grade, answer_text, overlap
from holdfast.config import Imported
from holdfast.data import cells, tables
from holdfast.data.shards import Question, png
from holdfast.data.tables import Row, named
from holdfast.errors import UserError, brief

_NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)
COLUMNS = ("image", "question", "answer")
OPTIONAL = ("grader", "reasoning")


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
    _check(benchmark)
    whole = _refuse_unanswered(benchmark.path)
    row = None
    for row in tables.read(benchmark.path, COLUMNS, OPTIONAL):
        yield _question(row, benchmark, whole)
    if row is None:
        raise UserError(f"{named(benchmark.path)}: holds no question; add rows of image, question and answer.")


def input_files(benchmark: Imported) -> list[tuple[str, Path]]:
    """The benchmark's file and the images that its rows name, by name. UserError if one is not there."""
    _check(benchmark)
    folder = benchmark.path.parent
    found: dict[str, Path] = {}
    for row in tables.read(benchmark.path, ("image",)):
        try:
            for path in cells.files(row.values.get("image"), folder):
                found[_relative(path, folder)] = path
                if not cells.is_file(path):
                    raise cells.refusal(path, folder, "no such file")
        except cells.Unusable as error:
            raise UserError(f"{row.place}: image {error}.") from error
    return [("", benchmark.path), *sorted(found.items())]


def _relative(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def _check(benchmark: Imported) -> None:
    path = benchmark.path
    if path.suffix.lower() not in tables.ENDINGS:
        raise UserError(f"prior: {named(path)} is neither .jsonl nor .parquet; convert it and correct its path.")
    if not path.is_file():
        raise UserError(f"prior: {named(path)} of benchmark {benchmark.name!r} does not exist; correct its path.")


def _refuse_unanswered(path: Path) -> bool:
    """Whether the answers' numbers are all whole. UserError if some are NaN or infinite, or there is none."""
    bad: list[str] = []

    def answers() -> Iterator[Any]:
        for row in tables.read(path, ("answer",)):
            answer = row.values.get("answer", "")
            if tables.missing(answer) or (isinstance(answer, float) and math.isinf(answer)):
                what = f"{answer}, no finite number" if isinstance(answer, float) else "empty"
                bad.append(f"{row.place}: answer is {what}; fill it in or remove the row")
            yield answer

    found = tables.whole(answers())
    if bad:
        more = f" (and {len(bad) - 1} more such rows)" if len(bad) > 1 else ""
        raise UserError(f"{bad[0]}{more}.")
    return found


def _question(row: Row, benchmark: Imported, whole: bool) -> Question:
    for column in COLUMNS:
        if column not in row.values:
            raise UserError(f"{row.place}: has no {column!r}; add it.")
    grader = _optional(row, "grader") or benchmark.grader
    if grader not in GRADERS:
        raise UserError(f"{row.place}: grader {brief(grader)!r} is unknown; use one of {', '.join(GRADERS)}.")
    answer = _answer(row, grader, whole)
    reference = f"<answer> {answer} </answer>"
    reasoning = _optional(row, "reasoning")
    return Question(
        id=f"{benchmark.name}-{row.number:06d}",
        image_id=f"{benchmark.name}/{row.number:06d}",
        images=_images(row, benchmark.path.parent),
        prompt=_text(row, "question"),
        answer=answer,
        reference=reference,
        grader=grader,
        benchmark=benchmark.name,
        teacher=f"<think> {reasoning} </think> {reference}" if reasoning else "",
    )


def _answer(row: Row, grader: str, whole: bool) -> str:
    """The answer as text, one that its own grader accepts."""
    answer = _text(row, "answer", whole)
    if not GRADERS[grader](f"<answer> {answer} </answer>", answer).correct:
        wanted = {
            "number": "a number",
            "choice": "the letter of an option",
            "box": "a box x1 y1 x2 y2 with x1 < x2 and y1 < y2",
        }.get(grader, "text without <")
        raise UserError(
            f"{row.place}: answer {brief(answer)!r} cannot be graded by {grader!r}; write {wanted} or another grader."
        )
    return answer


def _text(row: Row, column: str, whole: bool = False) -> str:
    value = row.values[column]
    try:
        found = " ".join(tables.text(part, whole) for part in (value if isinstance(value, list) else [value]))
    except ValueError as error:
        raise UserError(f"{row.place}: {column} {error}; write text or a number, or remove the row.") from error
    if not found:
        raise UserError(f"{row.place}: {column} is empty; fill it in or remove the row.")
    return found


def _optional(row: Row, column: str) -> str:
    value = row.values.get(column)
    return "" if tables.missing(value) or value == "" else _text(row, column)


def _images(row: Row, folder: Path) -> tuple[bytes, ...]:
    try:
        return tuple(png(image) for image in cells.images(row.values["image"], folder))
    except cells.Unusable as error:
        raise UserError(f"{row.place}: image {error}.") from error


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
