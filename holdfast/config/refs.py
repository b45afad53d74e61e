"""Refs to what stages make, and the digests that name their content. Imports no torch."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from holdfast.config.base import Config


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


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def directory_digest(path: Path) -> str:
    """sha256 over the sorted (relative name, sha256) pairs of all files below `path`."""
    files = sorted(p for p in path.rglob("*") if p.is_file())
    lines = (f"{p.relative_to(path).as_posix()} {file_digest(p)}\n" for p in files)
    return hashlib.sha256(_encoded("".join(lines))).hexdigest()


def content_key(content: Any) -> str:
    """sha256 of canonical JSON."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(_encoded(text)).hexdigest()


def _encoded(text: str) -> bytes:
    """Names of files that are no UTF-8 as the bytes that they are."""
    return text.encode(errors="surrogateescape")
