"""A few completions, beside their picture if there is one, as tables one opens in MLflow. Their text is untrusted."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from PIL import Image

from holdfast.data.shards import shard_paths

ROWS = 32
LONGEST = 8000
"""Characters of a text."""
SPLITS = {"evaluations": "test", "rollouts": "train", "samples": "train"}


def completion_tables(directory: Path, data: Path) -> Iterator[tuple[str, dict[str, list[Any]]]]:
    """Name and columns of a table for the last evaluation's target answers, for rollouts, and for samples."""
    for name, rows in _sources(directory):
        shards = [shard for shard in shard_paths(data, SPLITS[name]) if shard.is_file()]
        if rows and shards:
            chosen = rows[:ROWS]
            wanted = [("id", "in", [row["id"] for row in chosen])]
            asked = [row for shard in shards for row in pq.read_table(shard, filters=wanted).to_pylist()]
            yield f"{name}.json", _columns(chosen, {question["id"]: question for question in asked})


def _sources(directory: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    evaluations = sorted(directory.glob("evaluations/*.parquet"))
    if evaluations:
        rows = pq.read_table(evaluations[-1]).to_pylist()
        yield "evaluations", [row for row in rows if row["role"] == "target"]
    if (directory / "completions.parquet").is_file():
        yield "rollouts", pq.read_table(directory / "completions.parquet").to_pylist()[-ROWS:]
    if (directory / "samples.parquet").is_file():
        yield "samples", pq.read_table(directory / "samples.parquet").slice(0, ROWS).to_pylist()


def _columns(rows: list[dict[str, Any]], questions: dict[str, dict[str, Any]]) -> dict[str, list[Any]]:
    asked = [questions[row["id"]] for row in rows]
    given = {"image", "prompt", "answer"}
    shown = any(question["images"] for question in asked)
    columns: dict[str, list[Any]] = {"image": [_strip(question["images"]) for question in asked]} if shown else {}
    columns |= {
        "prompt": [_cut(question["prompt"]) for question in asked],
        "answer": [_cut(question["answer"]) for question in asked],
    }
    names = [name for name in rows[0] if name not in given]
    return columns | {name: [_cut(row[name]) for row in rows] for name in names}


def _cut(value: Any) -> Any:
    """A text that a page can show."""
    return f"{value[:LONGEST]} …" if isinstance(value, str) and len(value) > LONGEST else value


def _strip(images: list[bytes]) -> Image.Image:
    """All images of a question side by side; a dot of one without any."""
    pictures = [Image.open(io.BytesIO(data)).convert("RGB") for data in images] or [Image.new("RGB", (1, 1))]
    strip = Image.new("RGB", (sum(p.width for p in pictures), max(p.height for p in pictures)))
    left = 0
    for picture in pictures:
        strip.paste(picture, (left, 0))
        left += picture.width
    return strip
