"""Anyone's own benchmark: rows of image, question and answer, or of text alone, in a JSONL or Parquet file."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from holdfast.benchmarks.grading.graders import GRADERS, WANTED
from holdfast.benchmarks.grading.text import majority
from holdfast.benchmarks.question import THINK, bare
from holdfast.config.prior import Imported
from holdfast.data import table_images, tables
from holdfast.data.shards import Question, png
from holdfast.data.tables import TableRow, named
from holdfast.data.world import generator
from holdfast.errors import UserError, brief

COLUMNS = ("image", "question", "answer")
OPTIONAL = ("grader", "reasoning")
VALIDATION = 64
"""Questions that are set apart at most."""


def read_imported(benchmark: Imported) -> Iterator[Question]:
    """Questions row by row; refuses the first row that is incomplete, by its number (the first row is 1)."""
    _check(benchmark)
    whole, needed = _refuse_unanswered(benchmark.path), needed_columns(benchmark.path)
    row = None
    for row in tables.read(benchmark.path, needed, OPTIONAL):
        for column in needed:
            if column not in row.values:
                raise UserError(f"{row.place}: has no {column!r}; add it.")
        yield _question(row, benchmark, whole)
    if row is None:
        raise UserError(f"{named(benchmark.path)}: holds no question; add rows of image, question and answer.")


def needed_columns(path: Path) -> tuple[str, ...]:
    """What every row has to have. A file whose rows have nothing but text asks in text; another column may be a
    misspelt image.
    """
    return COLUMNS[1:] if tables.columns(path) <= {*COLUMNS[1:], *OPTIONAL} else COLUMNS


def splits(benchmark: Imported, seed: int) -> Iterator[tuple[str, Iterator[Question]]]:
    """Test questions, then validation ones: of a file of their own, or set apart by image.

    Raises:
        UserError: too few images to set some apart.
    """
    if benchmark.train_path is not None:
        yield "train", read_imported(benchmark.model_copy(update={"path": benchmark.train_path}))
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
    by_image: dict[bytes, list[str]] = {}
    for question in read_imported(benchmark):
        by_image.setdefault(hashlib.sha256(b"".join(question.images)).digest(), []).append(question.id)
    ids = list(by_image.values())
    groups = ids if len(ids) >= 4 else [[name] for names in ids for name in names]
    if len(groups) < 2:
        raise UserError(
            f"{named(benchmark.path)}: holds one question, and needs another one for validation; add some, or name a "
            f"file of validation questions in validation_path."
        )
    wanted = max(2 if len(groups) >= 4 else 1, len(groups) // 10)
    apart: set[str] = set()
    for number, place in enumerate(generator("validation", seed, benchmark.name).permutation(len(groups))[:wanted]):
        if number >= 2 and len(apart) + len(groups[place]) > VALIDATION:
            break
        apart.update(groups[place])
    return apart


def input_files(benchmark: Imported) -> list[tuple[str, Path]]:
    """The benchmark's files and the images that their rows name, by name. UserError if one is not there."""
    found = _input_files(benchmark)
    if benchmark.validation_path is not None:
        found += [(f"validation:{name}", path) for name, path in _input_files(_validation(benchmark))]
    if benchmark.train_path is not None:
        learned = benchmark.model_copy(update={"path": benchmark.train_path})
        found += [(f"train:{name}", path) for name, path in _input_files(learned)]
    return found


def _input_files(benchmark: Imported) -> list[tuple[str, Path]]:
    _check(benchmark)
    folder = benchmark.path.parent
    found: dict[str, Path] = {}
    if "image" not in needed_columns(benchmark.path):
        return [("", benchmark.path)]
    for row in tables.read(benchmark.path, ("image",)):
        try:
            for path in table_images.files(row.values.get("image"), folder):
                found[_relative(path, folder)] = path
                if not table_images.is_file(path):
                    raise table_images.refusal(path, folder, "no such file")
        except table_images.UnusableImage as error:
            raise UserError(f"{row.place}: image {error}.") from error
    return [("", benchmark.path), *sorted(found.items())]


def _relative(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def _check(benchmark: Imported) -> None:
    tables.require_file(f"prior {benchmark.name!r}", benchmark.path)


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


def _question(row: TableRow, benchmark: Imported, whole: bool) -> Question:
    grader = _optional(row, "grader") or benchmark.grader
    if grader not in GRADERS:
        raise UserError(f"{row.place}: grader {brief(grader)!r} is unknown; use one of {', '.join(GRADERS)}.")
    accepted = _answers(row, grader, whole)
    answer = majority(accepted)
    prefill = benchmark.prefill or ""
    reasoning = _optional(row, "reasoning")
    return Question(
        id=f"{benchmark.name}-{row.number:06d}",
        image_id=f"{benchmark.name}/{row.number:06d}",
        images=_images(row, benchmark.path.parent) if "image" in row.values else (),
        prompt=_text(row, "question") + (benchmark.suffix or "") + (THINK if benchmark.thinking else ""),
        answer=answer,
        reference=bare(answer, prefill, grader),
        grader=grader,
        benchmark=benchmark.name,
        teacher=_taught(reasoning, answer, grader) if reasoning else "",
        accepted=accepted if len(accepted) > 1 else (),
        system=benchmark.system or "",
        prefill=prefill,
    )


def _taught(reasoning: str, answer: str, grader: str) -> str:
    """The answer after its reasoning, each in its tags where the answer is in no box."""
    return f"{reasoning if grader == 'boxed' else f'<think> {reasoning} </think>'} {bare(answer, '', grader)}"


def _answers(row: TableRow, grader: str, whole: bool) -> tuple[str, ...]:
    """All accepted answers as text, each one that its own grader accepts."""
    parts = [part for part in _parts(row.values["answer"], grader) if not _blank(part)] or [None]
    found = tuple(_text(row._replace(values={**row.values, "answer": part}), "answer", whole) for part in parts)
    for answer in found:
        if not GRADERS[grader](f"<answer> {answer} </answer>", answer).correct:
            wanted = WANTED.get(grader, "text without <")
            raise UserError(
                f"{row.place}: answer {brief(answer)!r} cannot be graded by {grader!r}; write {wanted} or another "
                "grader."
            )
    return found


def _parts(value: Any, grader: str) -> list[Any]:
    """Accepted answers: the elements of a list, but for the sides of a box and the boxes of a picture."""
    if isinstance(value, dict) and grader not in ("box", "detection"):
        value = value.get("answer", value)
    if not isinstance(value, list):
        boxed = isinstance(value, dict) and grader in ("box", "detection")
        return [json.dumps(value, ensure_ascii=False) if boxed else value]
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
    return tables.missing(value) or (isinstance(value, str) and not value.strip())


def _text(row: TableRow, column: str, whole: bool = False) -> str:
    value = row.values[column]
    try:
        found = " ".join(tables.text(part, whole) for part in (value if isinstance(value, list) else [value]))
    except ValueError as error:
        raise UserError(f"{row.place}: {column} {error}; write text or a number, or remove the row.") from error
    if not found:
        raise UserError(f"{row.place}: {column} is empty; fill it in or remove the row.")
    return found


def _optional(row: TableRow, column: str) -> str:
    value = row.values.get(column)
    return "" if tables.missing(value) or value == "" else _text(row, column)


def _images(row: TableRow, folder: Path) -> tuple[bytes, ...]:
    try:
        return tuple(png(image) for image in table_images.images(row.values["image"], folder))
    except table_images.UnusableImage as error:
        raise UserError(f"{row.place}: image {error}.") from error
