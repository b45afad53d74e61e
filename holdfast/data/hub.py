"""An image column of a Hugging Face data set, decoded row by row."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from holdfast.config.images import Hub
from holdfast.config.refs import content_key
from holdfast.data.hub_room import require_room
from holdfast.data.pixels import rgb
from holdfast.data.splits import Pictures
from holdfast.data.table_images import is_file
from holdfast.errors import UserError, brief, reason

JPEG = b"\xff\xd8\xff"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_commits: ContextVar[dict[str, bool] | None] = ContextVar("commits", default=None)


@contextmanager
def noting_commits() -> Iterator[dict[str, bool]]:
    """Within, what is read from the Hub is noted as NAME@COMMIT, and whether that commit was asked for."""
    found: dict[str, bool] = {}
    token = _commits.set(found)
    try:
        yield found
    finally:
        _commits.reset(token)


class HubSource(Pictures):
    """Identities are row numbers; rows stay in the data set's memory-mapped files until they are asked for."""

    def __init__(self, images: Hub, seed: int) -> None:
        super().__init__(images.size, seed)
        self.images = images
        self.rows = _open(images)
        self._draft = False

    def photographs(self) -> dict[str, list[str]]:
        """All rows."""
        # A JPEG at a fraction of its size never equals the same picture in another format.
        self._draft = _beginnings(self.rows, self.images.column) == {JPEG}
        names = (f"{self.images.split}/{row:08d}" for row in range(len(self.rows)))
        return {name: [name] for name in names}

    def decoded(self, photograph: str) -> Image.Image:
        """A row's image."""
        value = self.rows[int(photograph.rpartition("/")[2])][self.images.column]
        return rgb(_file(value), self.size if self._draft else None)


def local_files(name: str, column: str) -> list[tuple[str, Path]]:
    """The files of a data set in a local directory, and those that the images of its Parquet files name, by name."""
    found = _files_below(Path(name))
    for path in list(found.values()):
        if path.suffix == ".parquet":
            found |= {other: Path(other) for other in sorted(_named_by_rows(path, column.partition(".")[0]))}
    return list(found.items())


def _files_below(root: Path) -> dict[str, Path]:
    """None of a data set on the Hub."""
    return {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if path.is_file()}


def _named_by_rows(file: Path, column: str) -> set[str]:
    """Paths of images that a Parquet file names instead of holding them; a damaged file is for `datasets` to tell."""
    try:
        with pq.ParquetFile(file) as table:
            schema = table.schema_arrow
            if column not in schema.names or schema.field(column).type in (pa.binary(), pa.large_binary()):
                return set()
            if _holds_all(table.metadata, column):
                return set()
            rows = (row for batch in table.iter_batches(64, columns=[column]) for row in batch.to_pylist())
            return {path for row in rows for path in _paths(row[column]) if is_file(Path(path))}
    except (pa.ArrowException, OSError, ValueError):
        return set()


def _holds_all(metadata: Any, column: str) -> bool:
    """Whether all images have bytes, as far as the file's statistics say."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    parts = [group.column(number) for group in groups for number in range(group.num_columns)]
    encoded = [part for part in parts if part.path_in_schema in (column, f"{column}.bytes")]
    return bool(encoded) and all(
        part.physical_type == "BYTE_ARRAY"
        and part.path_in_schema != column
        and part.is_stats_set
        and part.statistics.null_count == 0
        for part in encoded
    )


def _paths(value: Any) -> Iterator[str]:
    for image in value if isinstance(value, list) else [value]:
        if isinstance(image, str):
            yield image
        elif isinstance(image, dict) and not image.get("bytes") and image.get("path"):
            yield str(image["path"])


def load_split(name: str, revision: str | None, split: str, config: str | None = None):  # type: ignore[no-untyped-def]  # datasets.Dataset
    """The rows of a data set's split. ValueError, with the reason, where they cannot be loaded."""
    import datasets

    datasets.disable_progress_bars()
    with _told(name, split):
        _require_set(name, revision, config)
        rows = datasets.load_dataset(name, config, revision=revision, split=split, cache_dir=_cache(name))
    _note(name, revision, rows)
    return rows


def _note(name: str, revision: str | None, rows: Any) -> None:
    """`datasets` keeps what it read from the Hub in a directory that is named after the commit."""
    noted = _commits.get()
    if noted is None:
        return
    for file in rows.cache_files:
        commit = Path(file["filename"]).parent.name
        if _COMMIT.fullmatch(commit):
            noted[f"{name}@{commit}"] = commit == revision


def look_up(name: str, revision: str | None, split: str, config: str | None = None) -> None:
    """Look a data set up before anything of it is downloaded. ValueError, with the reason, where that fails."""
    with _told(name, split):
        _require_set(name, revision, config)


def _require_set(name: str, revision: str | None, config: str | None) -> None:
    """ValueError where the disk has no room, or `datasets` another revision: without a network it takes any it has."""
    import datasets

    if Path(name).exists():
        return
    builder = datasets.load_dataset_builder(name, config, revision=revision)
    found = builder.hash
    if revision is not None and _COMMIT.fullmatch(revision) and found != revision:
        raise ValueError(f"the Hub cannot be reached, and the cache has revision {found} instead of {revision}")
    require_room(name, builder)


@contextmanager
def _told(name: str, split: str) -> Iterator[None]:
    """What the Hub's client raises, as a ValueError with one reason."""
    import datasets
    from huggingface_hub.utils import httpx

    try:
        yield
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError, httpx.HTTPError) as error:
        raise ValueError(f"cannot load split {split!r} of {brief(name)} ({_why(error)})") from error


def _why(error: Exception) -> str:
    """What the Hub's client says, as the user can mend it."""
    said = reason(error, 160)
    if "gated" in said:
        return "is gated: ask for access on its page, and set HF_TOKEN to a token of yours"
    if said.startswith("Couldn't reach"):
        return "the Hub cannot be reached; name a local copy, or come back with a network"
    if "doesn't exist on the Hub" in said:
        return "the Hub has no such data set, or it is private: set HF_TOKEN"
    return said


def _cache(name: str) -> str | None:
    """A cache for this state of a local directory; `datasets` takes another one of the same name for the same data."""
    import datasets

    found = _files_below(Path(name))
    if not found:
        return None
    files = [(str(path.resolve()), path.stat()) for path in found.values()]
    state = content_key([(path, found.st_size, found.st_mtime_ns) for path, found in files])
    return str(Path(datasets.config.HF_DATASETS_CACHE) / "local" / state[:16])


def _open(images: Hub):  # type: ignore[no-untyped-def]  # datasets.Dataset, not imported before it is needed
    import datasets

    try:
        rows = load_split(images.name, images.revision, images.split)
    except ValueError as error:
        raise UserError(f"images.name: {error}; check images.name, images.revision and images.split.") from error
    if images.column not in rows.column_names:
        raise UserError(
            f"images.column: {images.name} has no column {images.column!r}; it has {', '.join(rows.column_names)}."
        )
    try:
        return rows.cast_column(images.column, datasets.Image(decode=False))
    except (TypeError, ValueError, NotImplementedError) as error:
        raise UserError(
            f"images.column: {images.column!r} of {images.name} holds no images; name a column that does."
        ) from error


def _beginnings(rows: Any, column: str) -> set[bytes | None]:
    """The first bytes of all encoded images; None for those in files of their own."""
    encoded = pc.struct_field(rows.data.column(column), "bytes")
    return set(pc.unique(pc.binary_slice(encoded, 0, len(JPEG))).to_pylist())


def _file(value: dict[str, bytes | str | None] | None) -> BytesIO | Path:
    """An encoded image as its column stores it: bytes, or the path of a file."""
    if value is None or (value["bytes"] is None and value["path"] is None):
        raise ValueError("no image in this row")
    return BytesIO(value["bytes"]) if isinstance(value["bytes"], bytes) else Path(str(value["path"]))
