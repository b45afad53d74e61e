"""Refs to what stages make, and the digests that name their content. Imports no torch."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

from holdfast.config.base import Config

LARGE = 1 << 24


class FileRef(Config):
    """A file and the sha256 of its bytes."""

    path: Path
    digest: str


class DataRef(Config):
    """A directory of shards under data/; `digest` covers the generated files, not the samples added later."""

    path: Path
    digest: str


class ModelRef(Config):
    """A checkpoint directory or a Hub id."""

    path: str
    digest: str
    """Of the checkpoint's files; for a Hub id, its commit."""
    step: int = 0
    """Optimizer steps that the last stage had taken."""
    revision: str | None = None
    adapter_of: ModelRef | None = None
    """The model that this checkpoint's LoRA adapter belongs on."""
    attention: str | None = None
    """How attention is computed, where the study says."""
    min_pixels: int | None = None
    """Bounds of an image, where the study sets them. Checkpoints of a training have them in their processor's file."""
    max_pixels: int | None = None

    @property
    def whole(self) -> ModelRef:
        """The model beneath all adapters."""
        return self if self.adapter_of is None else self.adapter_of.whole


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def directory_digest(path: Path) -> str:
    """sha256 over the sorted (relative name, `known_digest`) pairs of all files below `path`."""
    files = sorted(p for p in path.rglob("*") if p.is_file())
    lines = (f"{p.relative_to(path).as_posix()} {known_digest(p)}\n" for p in files)
    return hashlib.sha256(_encoded("".join(lines))).hexdigest()


Stamp = tuple[int, int]
"""Size of a file in bytes, and when it was changed, in nanoseconds."""
RECORD = "result.json"
DEEPEST = 3
"""Directories between a stage's file and its record."""


def stamp_of(path: Path) -> Stamp:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def known_digest(path: Path) -> str:
    """sha256 of a file's bytes; not read again where its stage's record has its digest, size and time.

    A checkpoint of a model of billions takes a minute to hash, and a study looks at its checkpoints at every start.
    """
    stamp = stamp_of(path)
    for place in list(path.parents)[:DEEPEST]:
        if (place / RECORD).is_file():
            digest, recorded = _recorded(place / RECORD, stamp_of(place / RECORD)).get(str(path), ("", None))
            return digest if recorded == stamp else _hashed(path, stamp)
    return _hashed(path, stamp)


@functools.lru_cache(maxsize=64)
def _recorded(record: Path, _stamp: Stamp) -> dict[str, tuple[str, Stamp]]:
    """What a stage's record says about its files, by their paths; a user's own file of that name says nothing."""
    try:
        content = json.loads(record.read_text())
        stamps, digests = content["stamps"], content["files"]
        return {str(record.parent / name): (digests[name], (stamp[0], stamp[1])) for name, stamp in stamps.items()}
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OSError):
        return {}


@functools.lru_cache(maxsize=4096)
def _hashed_once(path: Path, _stamp: Stamp, _inode: int) -> str:
    return file_digest(path)


def _hashed(path: Path, stamp: Stamp) -> str:
    """A process hashes a large file once; small ones may change twice within a clock's tick."""
    return _hashed_once(path, stamp, path.stat().st_ino) if stamp[0] > LARGE else file_digest(path)


def content_key(content: Any) -> str:
    """sha256 of canonical JSON."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(_encoded(text)).hexdigest()


def _encoded(text: str) -> bytes:
    """Names of files that are no UTF-8 as the bytes that they are."""
    return text.encode(errors="surrogateescape")
