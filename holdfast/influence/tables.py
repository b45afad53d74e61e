"""Rows of influence on disk: one for every sample, checkpoint and block of layers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

FIXED = pa.schema(
    [
        ("sample", pa.string()),
        ("prompt", pa.string()),
        ("source", pa.string()),
        ("step", pa.int64()),
        ("block", pa.string()),
        ("tokens", pa.int64()),
        ("loglik", pa.float64()),
        ("weight", pa.float64()),
        ("norm2", pa.float64()),
    ]
)
"""`prompt` is a question's id; `weight` is 1 for supervised samples and the advantage for rollouts. `loglik` (summed
over tokens) and the gradient behind `norm2` and every `dot/…` column are those of the completion's log-likelihood."""

SOURCES = pa.schema(
    [
        ("sample", pa.string()),
        ("prompt", pa.string()),
        ("step", pa.int64()),
        ("text", pa.string()),
        ("loglik_start", pa.float64()),
        ("certainty", pa.float64()),
        ("error", pa.float64()),
    ]
)
"""`loglik_start` is the completion's log-likelihood (summed over tokens) under the model that the stage began with,
`certainty` the mean over tokens of ‖π − e_y‖² and `error` that of ‖π − e_y‖. All are empty, as every column after
them, where a sample has no finite gradient."""
TRAJECTORY = pa.schema(
    [
        ("benchmark", pa.string()),
        ("id", pa.string()),
        ("start", pa.int64()),
        ("step", pa.int64()),
        ("measured", pa.float64()),
        ("first_order", pa.float64()),
        ("trapezoid", pa.float64()),
    ]
)


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write influence.parquet with a column `dot/TARGET` for every target; empty where a checkpoint lacks it."""
    _write(path, pa.Table.from_pylist(list(rows), _with(FIXED, rows, "dot/")))


def write_sources(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write sources.parquet: what each sample says, with a column `kernel2/BENCHMARK/PROBE` for every probe's ‖K‖²."""
    _write(path, pa.Table.from_pylist(list(rows), _with(SOURCES, rows, "kernel2/")))


def write_trajectory(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write path.parquet: each question's predicted and measured change between two checkpoints."""
    _write(path, pa.Table.from_pylist(list(rows), TRAJECTORY))


def _with(schema: pa.Schema, rows: Sequence[dict[str, Any]], prefix: str) -> pa.Schema:
    """A further column for every name in the rows that begins so."""
    found = dict.fromkeys(name for row in rows for name in row if name.startswith(prefix))
    return pa.schema([*schema, *(pa.field(name, pa.float64()) for name in found)])


def _write(path: Path, table: pa.Table) -> None:
    partial = path.with_suffix(".partial")
    pq.write_table(table, partial)
    partial.replace(path)
