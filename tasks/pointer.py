"""What data.dvc pins: DVC's md5 of data/ and, under `meta`, the md5 of every file, so that one that differs has a name.

DVC keeps `meta` when it rewrites the pointer. The list counts only while it hashes to DVC's own md5.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import yaml

from holdfast.errors import UserError, writing

POINTER = "data.dvc"

Listing = dict[str, str]
"""md5 by path relative to data/."""


def version(root: Path) -> str:
    """DVC's md5 of data/; empty before there is any."""
    document = _read(root)
    return str(document["outs"][0]["md5"]) if document else ""


def listing(root: Path) -> Listing | None:
    """The files that data.dvc pins; None where its list is not the one that DVC hashed."""
    document = _read(root)
    if not document:
        return {}
    files = (document.get("meta") or {}).get("files") or {}
    return files if tree_md5(files) == document["outs"][0]["md5"] else None


def write_listing(root: Path, files: Listing) -> None:
    """Set the list of files beside DVC's md5."""
    document = _read(root)
    document["meta"] = {**(document.get("meta") or {}), "files": files}
    partial = root / f"{POINTER}.partial"
    with writing(root / POINTER):
        partial.write_text(yaml.safe_dump(document, sort_keys=False))
        partial.replace(root / POINTER)


def tree(files: Listing) -> bytes:
    """A directory as DVC stores it in its cache."""
    return json.dumps([{"md5": files[path], "relpath": path} for path in sorted(files)]).encode()


def tree_md5(files: Listing) -> str:
    return hashlib.md5(tree(files)).hexdigest() + ".dir"


def _read(root: Path) -> dict[str, Any]:
    path = root / POINTER
    if not path.is_file():
        return {}
    try:
        document = yaml.safe_load(path.read_text())
        document["outs"][0]["md5"]
    except (yaml.YAMLError, KeyError, IndexError, TypeError) as error:
        raise UserError(f"{path}: is no pointer that DVC wrote; restore it with `git checkout {POINTER}`.") from error
    return document
