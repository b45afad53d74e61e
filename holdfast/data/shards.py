"""Questions on disk: Parquet with fixed writer settings, so that the same questions always give the same bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from holdfast.errors import writing

ROWS_PER_GROUP = 64


class Question(NamedTuple):
    """One question about one or more images, with all that training and grading need."""

    id: str
    image_id: str
    images: tuple[bytes, ...]
    """PNG files, in the order in which they are shown."""
    prompt: str
    answer: str
    """What stands inside the answer tags."""
    reference: str
    """A full right completion."""
    grader: str
    """A name in catalog.GRADERS."""
    benchmark: str
    teacher: str = ""
    """A full right completion in a foreign style; the target only."""


SCHEMA = pa.schema(
    [
        pa.field(name, pa.list_(pa.binary()) if name == "images" else pa.string(), nullable=False)
        for name in Question._fields
    ]
)


def png(image: Image.Image) -> bytes:
    """The image as a PNG file, uncompressed: the shard compresses it as well, in a fraction of the time."""
    buffer = BytesIO()
    image.save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


def write_questions(path: Path, questions: Iterable[Question]) -> int:
    """Stream questions into a Parquet file; returns how many. Memory holds one row group at a time."""
    remaining = iter(questions)
    written = 0
    with writing(path), path.open("wb") as file, _writer(file) as writer:
        while group := list(islice(remaining, ROWS_PER_GROUP)):
            writer.write_table(pa.Table.from_pylist([question._asdict() for question in group], SCHEMA))
            written += len(group)
    return written


def read_questions(path: Path, limit: int | None = None) -> list[Question]:
    """The first `limit` questions of a shard, or all of them."""
    return list(islice(_stream(path), limit))


def _writer(file: object) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        file,
        SCHEMA,
        version="2.6",
        data_page_version="1.0",
        compression="zstd",
        compression_level=3,
        use_dictionary=False,
        write_statistics=False,
        store_schema=False,
    )


def _stream(path: Path) -> Iterator[Question]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(ROWS_PER_GROUP):
            for row in batch.to_pylist():
                yield Question(**{**row, "images": tuple(row["images"])})
