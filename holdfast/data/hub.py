"""An image column of a Hugging Face data set, decoded row by row."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from PIL import Image

from holdfast.artifacts import content_key
from holdfast.config import Hub
from holdfast.data.images import UNREADABLE, deal, rgb, square
from holdfast.errors import UserError


class HubSource:
    """Identities are row numbers; rows stay in the data set's memory-mapped files until they are asked for."""

    def __init__(self, images: Hub, seed: int) -> None:
        self.images = images
        self.seed = seed
        self.skipped: list[str] = []
        self.rows = _open(images)

    def split(self, counts: dict[str, int]) -> dict[str, list[str]]:
        dealt = deal(len(self.rows), counts, self.seed)
        return {name: [f"{self.images.split}/{row:08d}" for row in rows] for name, rows in dealt.items()}

    def load(self, image_id: str) -> Image.Image | None:
        if image_id in self.skipped:
            return None
        cell = self.rows[int(image_id.rpartition("/")[2])][self.images.column]
        size = self.images.size
        try:
            return square(rgb(_file(cell), size), size)
        except UNREADABLE:
            self.skipped.append(image_id)
            return None


def load_split(name: str, revision: str | None, split: str):  # type: ignore[no-untyped-def]  # datasets.Dataset
    """The rows of a data set's split. ValueError, with the reason, where they cannot be loaded."""
    import datasets

    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(name, revision=revision, split=split, cache_dir=_cache(name))
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise ValueError(f"cannot load split {split!r} of {name} ({reason})") from error


def _cache(name: str) -> str | None:
    """A cache for this state of a local directory; `datasets` takes another one of the same name for the same data."""
    import datasets

    root = Path(name)
    if not root.is_dir():
        return None
    files = [(str(path.resolve()), path.stat()) for path in sorted(root.rglob("*")) if path.is_file()]
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


def _file(cell: dict[str, bytes | str | None] | None) -> BytesIO | Path:
    """An encoded image as its column stores it: bytes, or the path of a file."""
    if cell is None or (cell["bytes"] is None and cell["path"] is None):
        raise ValueError("no image in this row")
    return BytesIO(cell["bytes"]) if isinstance(cell["bytes"], bytes) else Path(str(cell["path"]))
