"""Rows of a table of the user's own, JSONL or Parquet, and their text; errors name the row."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from holdfast.errors import UserError, brief, reason

BATCH = 64
"""Rows of a Parquet file in memory."""
LONGEST = 256 * 2**20
"""Bytes of a line of a JSONL file."""
ENDINGS = (".jsonl", ".parquet")


class TableRow(NamedTuple):
    """A row of the user's file, and what to call it in an error."""

    number: int
    """The first is 1."""
    place: str
    values: dict[str, Any]


def named(path: Path) -> str:
    """A file for a message."""
    return brief(path, 120)


def require_file(field: str, path: Path) -> None:
    """UserError that names the field unless a file is there, and of a kind that is read."""
    if path.suffix.lower() not in ENDINGS:
        raise UserError(f"{field}: {named(path)} is no JSONL or Parquet file; name one.")
    if not path.is_file():
        raise UserError(f"{field}: {named(path)} is not there; make it, or correct the path.")


def read(path: Path, needed: Sequence[str], optional: Sequence[str] = ()) -> Iterator[TableRow]:
    """The rows, with these columns of a Parquet file and all of a JSONL file. UserError where they cannot be read."""
    if path.suffix.lower() == ".jsonl":
        return _json_rows(path)
    return _parquet_rows(path, needed, optional)


def columns(path: Path) -> set[str]:
    """The names of a Parquet file's columns, or of those that any row of a JSONL file has. UserError as in `read`."""
    if path.suffix.lower() == ".jsonl":
        return {name for row in _json_rows(path) for name in row.values}
    try:
        return set(pq.read_schema(path).names)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{named(path)}: cannot be read as Parquet ({reason(error)}); write the file again.") from error


def missing(value: Any) -> bool:
    """Nothing, or NaN, which is how pandas writes nothing."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def whole(values: Iterator[Any]) -> bool:
    """Whether a column of fractions has none: pandas makes them of whole numbers where some are missing."""
    numbers = [number for value in values for number in _fractions(value) if math.isfinite(number)]
    return bool(numbers) and all(number == int(number) for number in numbers)


def _fractions(value: Any) -> Iterator[float | Decimal]:
    if isinstance(value, list):
        for part in value:
            yield from _fractions(part)
    elif isinstance(value, float | Decimal):
        yield value


def text(value: Any, whole: bool = False) -> str:
    """A value as a person writes it; with `whole`, 3.0 is 3. ValueError, with what it is, where it is no text."""
    if missing(value):
        return ""
    if isinstance(value, str):
        return _valid(value.strip())
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float | Decimal):
        return _decimal(value, whole)
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == time() else value.isoformat(" ")
    if isinstance(value, int | date | time):
        return str(value)
    raise ValueError(f"is {type(value).__name__}")


def _valid(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("has half of a character (a lone surrogate)") from None
    return value


def _decimal(value: float | Decimal, whole: bool) -> str:
    if not math.isfinite(value):
        raise ValueError(f"is {value}")
    if whole:
        return str(int(value))
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


def _json_rows(path: Path) -> Iterator[TableRow]:
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(LONGEST + 1), b""), 1):
            place = f"{named(path)}, row {number}"
            if len(line) > LONGEST:
                raise UserError(f"{place}: is longer than {LONGEST // 2**20} MiB; write images to files of their own.")
            try:
                content = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                if not content:
                    continue
                values = json.loads(content)
            except UnicodeDecodeError:
                raise UserError(f"{place}: is no UTF-8; save the file in that encoding.") from None
            except (ValueError, RecursionError) as error:
                raise UserError(f"{place}: is no JSON ({reason(error)}); write one object a line.") from error
            if not isinstance(values, dict):
                raise UserError(f"{place}: is no JSON object; write one with image, question and answer.")
            yield TableRow(number, place, values)


def _parquet_rows(path: Path, needed: Sequence[str], optional: Sequence[str]) -> Iterator[TableRow]:
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            for column in needed:
                if column not in names:
                    raise UserError(
                        f"{named(path)}: has no column {column!r}; add it, the file has {brief(', '.join(names), 80)}."
                    )
            columns = [name for name in (*needed, *optional) if name in names]
            for batch in file.iter_batches(BATCH, columns=columns):
                for values in _exact(batch).to_pylist():
                    number += 1
                    yield TableRow(number, f"{named(path)}, row {number}", values)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        after = f" after row {number}" if number else ""
        raise UserError(
            f"{named(path)}: cannot be read as Parquet{after} ({reason(error)}); write the file again."
        ) from error


def _exact(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Numbers of 16 and 32 bits as they are written, 0.1 rather than 0.10000000149011612."""
    for index, field in enumerate(batch.schema):
        if _is_short(field.type) or (pa.types.is_list(field.type) and _is_short(field.type.value_type)):
            listed = pa.types.is_list(field.type)
            column = batch.column(index)
            for kind in (pa.float32(), pa.string(), pa.float64()):
                column = column.cast(pa.list_(kind) if listed else kind)
            batch = batch.set_column(index, field.name, column)
    return batch


def _is_short(kind: pa.DataType) -> bool:
    return pa.types.is_float16(kind) or pa.types.is_float32(kind)
