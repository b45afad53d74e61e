"""What a study came to, read off its database and its files by other means than its own, and what is wrong with it."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlparse

import yaml

TIMES = re.compile(r"(^|/)seconds$|time|per_second|peak_memory_mb|^system/|num_tokens")
"""Metrics that another run has another value of."""
RECORDS = ("metrics.jsonl", "job.json", "result.json")


class Store(NamedTuple):
    """An MLflow database, where artifacts that are on a server lie, and where those are that were copied elsewhere."""

    database: Path
    served: Path | None = None
    moved: tuple[Path, Path] | None = None

    def rows(self, query: str, *given: Any) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"file:{self.database}?mode=rw", uri=True)) as connection:
            return connection.execute(query, given).fetchall()

    def place(self, uri: str) -> Path:
        """Where a run's artifacts lie."""
        parts = urlparse(uri)
        path = unquote(parts.path)
        if parts.scheme not in ("", "file"):
            assert self.served is not None
            return self.served / path.lstrip("/")
        return self.moved[1] / Path(path).relative_to(self.moved[0]) if self.moved else Path(path)


class Stage(NamedTuple):
    """A finished run of a stage."""

    key: str
    kind: str
    run_id: str
    path: Path


def finished(store: Store) -> list[Stage]:
    """All of them, latest last."""
    query = """SELECT key.value, kind.value, runs.run_uuid, runs.artifact_uri FROM runs
        JOIN tags AS key ON key.run_uuid = runs.run_uuid AND key.key = 'holdfast.stage_key'
        JOIN tags AS kind ON kind.run_uuid = runs.run_uuid AND kind.key = 'holdfast.kind'
        WHERE runs.status = 'FINISHED' ORDER BY runs.start_time"""
    return [Stage(key, kind, run_id, store.place(uri)) for key, kind, run_id, uri in store.rows(query)]


def results(store: Store) -> dict[str, Any]:
    """By stage key, what the latest finished run measured and made, without times and places."""
    found: dict[str, Any] = {}
    for stage in {stage.key: stage for stage in finished(store)}.values():
        said = json.loads((stage.path / "result.json").read_text())
        # A report names runs and times, and so does its key.
        compares = stage.kind == "compare"
        files = {} if compares else said["files"]
        found["compare" if compares else stage.key] = {
            "kind": stage.kind,
            "metrics": _timeless(said["metrics"]),
            "checkpoints": said["checkpoints"],
            "arms": _arms(stage.path / "summary.json") if compares else None,
            "files": {name: digest for name, digest in files.items() if name not in RECORDS},
            "journal": _journal(stage.path / "metrics.jsonl"),
            "logged": sorted(
                (name, step, f"{value:.4g}")
                for name, step, value in store.rows(
                    "SELECT key, step, value FROM metrics WHERE run_uuid = ?", stage.run_id
                )
                if not TIMES.search(name)
            ),
        }
    return found


def problems(root: Path, store: Store, corrupted: bool) -> Iterator[str]:
    """What no study may leave, whatever happened to it. Of a corrupted evaluation the other files count on."""
    for run_id, name in store.rows("SELECT run_uuid, name FROM runs WHERE status = 'RUNNING'"):
        yield f"{name} ({run_id[:6]}) is RUNNING"
    twice = """SELECT key, step, COUNT(*) FROM metrics JOIN runs USING (run_uuid) WHERE status = 'FINISHED'
        AND key NOT LIKE 'system/%' GROUP BY run_uuid, key, step HAVING COUNT(*) > 1"""
    yield from (f"{key} has step {step} {count} times" for key, step, count in store.rows(twice))
    models = """SELECT source_run_id, tag_value, COUNT(*), MAX(logged_models.status) FROM logged_models
        JOIN logged_model_tags USING (model_id) JOIN runs ON runs.run_uuid = source_run_id
        WHERE tag_key = 'holdfast.step' AND runs.status = 'FINISHED' GROUP BY source_run_id, tag_value"""
    for _run_id, step, count, status in store.rows(models):
        if count > 1 or status != READY:
            yield f"the model of step {step} is there {count} times, with status {status}"
    latest = {stage.key: stage for stage in finished(store)}
    for stage in latest.values():
        if not (corrupted and stage.kind == "evaluate"):
            yield from _broken(stage)
    yield from _left(root)
    yield from _unversioned(root)


READY = 2
"""A logged model's status in the database."""


def run_twice(store: Store, corrupted: bool) -> Iterator[str]:
    """Stages with more finished runs than one; two where a file of the first was corrupted."""
    for key, count in Counter(stage.key for stage in finished(store) if stage.kind != "compare").items():
        if count > 1 + corrupted:
            yield f"the stage {key[:6]} was run {count} times"


def _broken(stage: Stage) -> Iterator[str]:
    said = json.loads((stage.path / "result.json").read_text())
    for name, digest in said["files"].items():
        # DVC keeps the shards of a data stage.
        if stage.kind == "data" and name.endswith(".parquet") and not (stage.path / name).exists():
            continue
        if not (stage.path / name).is_file() or _digest(stage.path / name) != digest:
            yield f"{stage.kind} {stage.run_id[:6]}: {name} is not what result.json says"


def _left(root: Path) -> Iterator[str]:
    work = root / "mlruns" / "work"
    left = [path for path in work.iterdir() if path.name != "locks"] if work.is_dir() else []
    left += [
        path for folder in ("mlruns/artifacts", "mlruns/cache", "data") for path in root.glob(f"{folder}/**/*.partial")
    ]
    yield from (f"{path.relative_to(root)} is left" for path in left)


def _unversioned(root: Path) -> Iterator[str]:
    """Data that data.dvc does not have, or has otherwise."""
    pinned = yaml.safe_load((root / "data.dvc").read_text())["meta"]["files"]
    there = {path.relative_to(root / "data").as_posix() for path in (root / "data").rglob("*") if path.is_file()}
    yield from (f"data/{name} is in {'data.dvc' if name in pinned else 'data/'} alone" for name in there ^ set(pinned))
    for name in there & set(pinned):
        if _digest(root / "data" / name, "md5") != pinned[name]:
            yield f"data/{name} differs from data.dvc"


def _journal(path: Path) -> list[Any]:
    if not path.is_file():
        return []
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [[line["step"], _timeless(line["metrics"]), line.get("checkpoint")] for line in lines if "metrics" in line]


def _arms(summary: Path) -> Any:
    arms = json.loads(summary.read_text())["arms"]
    return {arm: {name: arms[arm].get(name) for name in ("score", "retention", "forgetting")} for arm in arms}


def _timeless(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in sorted(metrics.items()) if not TIMES.search(name)}


def _digest(path: Path, algorithm: str = "sha256") -> str:
    return hashlib.new(algorithm, path.read_bytes()).hexdigest()
