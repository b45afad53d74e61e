"""Questions on disk: Parquet with fixed writer settings, so that the same questions always give the same bytes."""

from __future__ import annotations

import os
import shutil
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from glob import escape
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from holdfast.config.refs import known_digest
from holdfast.errors import UserError, reason, writing

ROWS_PER_GROUP = 64
LARGE = 256 * 2**20
"""Bytes of a shard's images from which on they stay on disk: they are not compressed in memory, a puzzle of 504 pixels
takes 760 kB, and each of several GPUs has a process of its own."""


class Question(NamedTuple):
    """One question about one or more images, with all that training and grading need."""

    id: str
    image_id: str
    images: Sequence[bytes]
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
    accepted: tuple[str, ...] = ()
    """All accepted answers, once for every annotator who gave them; empty where there is `answer` alone."""
    system: str = ""
    """A system prompt; empty for the model's default."""
    prefill: str = ""
    """How the answer begins, as a part of the prompt."""
    details: str = ""
    """A JSON object of what else is needed to grade an answer: the options, or a public benchmark's row."""


OPTIONAL = {
    "accepted": pa.list_(pa.string()),
    "system": pa.string(),
    "prefill": pa.string(),
    "details": pa.string(),
}
"""Columns of those shards alone of which a question has something to say there."""
SCHEMA = pa.schema(
    [
        pa.field(name, pa.list_(pa.binary()) if name == "images" else pa.string(), nullable=False)
        for name in Question._fields
        if name not in OPTIONAL
    ]
)


def png(image: Image.Image) -> bytes:
    """An RGB image as a PNG file, neither filtered nor compressed: the shard compresses it in a fraction of the time.

    Pillow would try five filters on every row, a tenth of the time that a puzzle takes, and choose as its version does.

    Raises:
        ValueError: the image is not RGB.
    """
    if image.mode != "RGB":
        raise ValueError(f"an RGB image is needed, not one of mode {image.mode}")
    rows = np.zeros((image.height, 1 + 3 * image.width), np.uint8)
    rows[:, 1:] = np.asarray(image).reshape(image.height, -1)
    header = struct.pack(">IIBBBBB", *image.size, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 0)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in parts)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def prior_shard(benchmark: str, split: str = "test") -> str:
    """The file of a prior benchmark's questions: test ones are reported; validation ones choose, alarm and explain."""
    return f"prior-{benchmark}.parquet" if split == "test" else f"prior_{split}-{benchmark}.parquet"


def target_shard(split: str, name: str = "") -> str:
    """The file of a target's questions; its name stands there where a study has `targets`."""
    return f"target_{split}-{name}.parquet" if name else f"target-{split}.parquet"


def target_shards(data: Path, split: str) -> list[Path]:
    """All targets' shards of a split."""
    return sorted(data.glob(target_shard(split, "*"))) or [data / target_shard(split)]


def shard_paths(data: Path, split: str) -> list[Path]:
    """The targets' shards and all prior benchmarks' of a split, the targets' first."""
    return [*target_shards(data, split), *sorted(data.glob(prior_shard("*", split)))]


def write_questions(path: Path, questions: Iterable[Question]) -> int:
    """Stream questions into a Parquet file; returns how many. Memory holds one row group at a time."""
    remaining = iter(questions)
    optional: dict[str, list[Any]] = {name: [] for name in OPTIONAL}
    with writing(path), path.open("wb") as file, _writer(file, SCHEMA) as writer:
        while group := list(islice(remaining, ROWS_PER_GROUP)):
            writer.write_table(pa.Table.from_pylist([question._asdict() for question in group], SCHEMA))
            for name, values in optional.items():
                values += [getattr(question, name) for question in group]
    said = {name: values for name, values in optional.items() if any(values)}
    if said:
        with writing(path):
            _add_columns(path, said)
    return len(optional["accepted"])


def read_questions(path: Path, limit: int | None = None) -> list[Question]:
    """The first `limit` questions of a shard, or all of them, images of a large shard as they are looked at.

    Raises:
        UserError: they cannot be laid out for that.
    """
    images = None if limit is not None or _image_bytes(path) < LARGE else _mapped_images(path)
    return list(islice(_stream(path, images), limit))


def _image_bytes(path: Path) -> int:
    """As they are in memory."""
    with pq.ParquetFile(path) as file:
        column = file.schema_arrow.get_field_index("images")
        groups = (file.metadata.row_group(number) for number in range(file.num_row_groups))
        return sum(group.column(column).total_uncompressed_size for group in groups)


class _MappedImages(Sequence[bytes]):
    """One question's, in a file that is mapped into memory."""

    def __init__(self, rows: Any, row: int, length: int) -> None:
        self.rows, self.row, self.length = rows, row, length

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.rows[self.row]["images"])

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        return self.rows[self.row]["images"][index]


def _mapped_images(path: Path) -> list[_MappedImages]:
    """Of every question. The file is Arrow's, in the cache of `datasets` (HF_DATASETS_CACHE), once on a machine."""
    from datasets import Dataset, config, disable_progress_bars
    from datasets.exceptions import DatasetGenerationError

    disable_progress_bars()
    place = Path(config.HF_DATASETS_CACHE) / "holdfast" / known_digest(path)
    try:
        shard = _linked(path, place)
        rows: Any = Dataset.from_parquet(escape(str(shard)), cache_dir=str(place), columns=["images"])
    except (OSError, DatasetGenerationError) as error:
        why = reason(error.__cause__ or error)
        raise UserError(
            f"{config.HF_DATASETS_CACHE}: the images of {path} cannot be laid out there ({why}); free some space, or "
            "set HF_DATASETS_CACHE to another directory."
        ) from error
    lengths = pc.list_value_length(rows.data.column("images")).to_pylist()
    return [_MappedImages(rows, row, length) for row, length in enumerate(lengths)]


def _linked(path: Path, place: Path) -> Path:
    """The shard under a name for its content: `datasets` knows a file by its name and time, whatever is in it."""
    shard = place / "shard.parquet"
    if not shard.is_file():
        place.mkdir(parents=True, exist_ok=True)
        partial = place / f"{os.getpid()}.partial"
        try:
            os.link(path, partial)
        except OSError:
            shutil.copy2(path, partial)
        partial.replace(shard)
        partial.unlink(missing_ok=True)
    return shard


def _add_columns(path: Path, columns: dict[str, list[Any]]) -> None:
    """Write the shard again with these columns; only its last question tells whether they are needed."""
    wide = path.with_name(path.name + ".wide")
    fields = [pa.field(name, OPTIONAL[name], nullable=False) for name in columns]
    schema = pa.schema([*SCHEMA, *fields])
    with pq.ParquetFile(path) as narrow, wide.open("wb") as file, _writer(file, schema) as writer:
        for index, group in enumerate(narrow.iter_batches(ROWS_PER_GROUP)):
            start = index * ROWS_PER_GROUP
            added = [pa.array(columns[field.name][start : start + group.num_rows], field.type) for field in fields]
            writer.write_table(pa.Table.from_arrays([*group.columns, *added], schema=schema))
    wide.replace(path)


def _writer(file: object, schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        file,
        schema,
        version="2.6",
        data_page_version="1.0",
        compression="zstd",
        compression_level=3,
        use_dictionary=False,
        write_statistics=False,
        store_schema=False,
    )


def _stream(path: Path, images: Sequence[Sequence[bytes]] | None = None) -> Iterator[Question]:
    """With these images, or with the shard's in memory."""
    with pq.ParquetFile(path) as file:
        columns = [name for name in file.schema_arrow.names if images is None or name != "images"]
        rows = (row for batch in file.iter_batches(ROWS_PER_GROUP, columns=columns) for row in batch.to_pylist())
        for number, row in enumerate(rows):
            shown = tuple(row["images"]) if images is None else images[number]
            yield Question(**{**row, "images": shown, "accepted": tuple(row.get("accepted") or ())})
