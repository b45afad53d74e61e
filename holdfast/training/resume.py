"""Where an interrupted training goes on. TRL writes a checkpoint file by file, so a kill may leave half of one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

MARK = "complete.json"


def mark_complete(checkpoint: Path, seconds: float) -> None:
    """Say that every file is written: their sizes, and the seconds that training has taken so far."""
    (checkpoint / MARK).write_text(json.dumps({"sizes": _sizes(checkpoint), "seconds": seconds}))


def last_complete(directory: Path) -> Path | None:
    """The newest checkpoint whose files are all there in full; half-written ones are removed."""
    found = sorted(directory.glob("checkpoint-*"), key=step_of, reverse=True)
    complete = [checkpoint for checkpoint in found if _is_complete(checkpoint)]
    for checkpoint in found:
        if checkpoint not in complete:
            shutil.rmtree(checkpoint)
    return complete[0] if complete else None


def step_of(checkpoint: Path) -> int:
    """Optimizer steps that a checkpoint-N has taken."""
    return int(checkpoint.name.rsplit("-", 1)[1])


def seconds_of(checkpoint: Path) -> float:
    """Seconds of training before the checkpoint, over all processes."""
    return json.loads((checkpoint / MARK).read_text())["seconds"]


def _is_complete(checkpoint: Path) -> bool:
    mark = checkpoint / MARK
    if not mark.is_file():
        return False
    try:
        return json.loads(mark.read_text())["sizes"] == _sizes(checkpoint)
    except json.JSONDecodeError:
        return False


def _sizes(checkpoint: Path) -> dict[str, int]:
    files = (path for path in checkpoint.rglob("*") if path.is_file() and path.name != MARK)
    return {path.relative_to(checkpoint).as_posix(): path.stat().st_size for path in sorted(files)}
