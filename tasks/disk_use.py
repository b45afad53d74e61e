"""How much room each study takes on this machine: artifacts of its runs, or local copies of them, and its data."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from tasks.tracking import Store, ViewType


def by_study(root: Path, store: Store) -> dict[str, int]:
    """Bytes by study, sweep or comparison, largest first. What several studies found is counted where it was made."""
    sizes: Counter[str] = Counter()
    unnamed: dict[str, Path] = {}
    for run_id, place in store.artifacts.places():
        if name := _study(place):
            sizes[name] += size_of(place)
        else:
            unnamed[run_id] = place
    for run in store.with_ids(unnamed, ViewType.ALL):
        name = run.data.tags.get("holdfast.study") or run.info.run_name
        sizes[name] += size_of(unnamed[run.info.run_id])
    for place in (root / "data").glob("*"):
        if place.is_dir():
            # Named by the study, or the sweep, and what decides the data.
            sizes[place.name.rpartition("-")[0] or place.name] += size_of(place)
    return {name: size for name, size in sizes.most_common() if size}


def _study(place: Path) -> str:
    """As a run's own config has it: to ask a store of thousands of runs for their tags takes minutes."""
    try:
        config = json.loads((place / "config.json").read_bytes())
    except (OSError, ValueError):
        return ""
    return str(config.get("name") or "") if isinstance(config, dict) else ""


def size_of(place: Path) -> int:
    """Bytes of a file, or of all files below a directory."""
    files = place.rglob("*") if place.is_dir() else [place]
    return sum(path.lstat().st_size for path in files if path.is_file() and not path.is_symlink())
