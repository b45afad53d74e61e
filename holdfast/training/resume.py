"""Where an interrupted training goes on: at the newest checkpoint whose every byte is as it was written.

TRL writes a checkpoint file by file, so a kill may leave half of one, and a disk may lose or change what was written.
All that a resumed training takes up lies in its checkpoint, or beside it under a digest that the checkpoint has.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from holdfast.config.refs import directory_digest, file_digest
from holdfast.config.study import Strategy
from holdfast.errors import UserError

MARK = "complete.json"
SHARDED_OPTIMIZER = "optimizer.bin"
"""What accelerate calls an optimizer's state that lay in parts; that of one that did not is optimizer.pt."""
PARTS_OF_OPTIMIZER = "global_step*/*_optim_states.pt"
"""DeepSpeed's, one for every process."""


class Mark(NamedTuple):
    """What is written last into a checkpoint."""

    files: Mapping[str, str]
    """Digest of every other file of it, by name."""
    kept: Mapping[str, str]
    """Digest of what the training has kept so far, by path below its directory."""
    seconds: float
    """That training has taken so far, over all processes."""


def mark_complete(checkpoint: Path, seconds: float, kept: Mapping[str, str]) -> None:
    """Say that every file is written."""
    mark = Mark(_digests(checkpoint), kept, seconds)
    (checkpoint / MARK).write_text(json.dumps(mark._asdict()))


def last_intact(out: Path) -> Path | None:
    """The newest checkpoint of a training's directory that is whole, with all kept until then; newer ones are removed.

    Of those in trainer/ only: what is kept in checkpoints/ has no optimizer.
    """
    for checkpoint in sorted((out / "trainer").glob("checkpoint-*"), key=step_of, reverse=True):
        if _is_intact(checkpoint, out):
            return checkpoint
        shutil.rmtree(checkpoint)
    return None


def ready_for(checkpoint: Path | None, ranks: int, strategy: Strategy) -> Path | None:
    """The checkpoint with a random state for every rank. All of a group have the same, whatever their number.

    Raises:
        UserError: it was left by a training whose strategy was another, or, with zero3, whose number of ranks was.
    """
    if checkpoint is not None:
        anew = f"set it as it was, or remove {checkpoint.parents[1]} to begin anew"
        parts = len([*checkpoint.glob(PARTS_OF_OPTIMIZER)])
        was = "zero3" if parts else "fsdp2" if (checkpoint / SHARDED_OPTIMIZER).is_file() else "ddp"
        if was != "ddp" and ranks == 1:
            raise UserError(f"compute.gpus: the interrupted training was {was}, which needs two at least; {anew}")
        if was != strategy:
            raise UserError(f"compute.strategy: the interrupted training was {was}, and this is {strategy}; {anew}")
        if parts not in (0, ranks):
            raise UserError(f"compute.gpus: the interrupted training had {parts}, and zero3 needs as many; {anew}")
        there = min(checkpoint.glob("rng_state*.pth"))
        for name in ["rng_state.pth"] if ranks == 1 else [f"rng_state_{rank}.pth" for rank in range(ranks)]:
            if not (checkpoint / name).exists():
                shutil.copy(there, checkpoint / f"{name}.partial")
                (checkpoint / f"{name}.partial").rename(checkpoint / name)
    return checkpoint


def step_of(checkpoint: Path) -> int:
    """Optimizer steps that a checkpoint-N has taken."""
    return int(checkpoint.name.rsplit("-", 1)[1])


def mark_of(checkpoint: Path) -> Mark:
    """What a checkpoint says of itself. ValueError, TypeError or OSError where it is broken."""
    return Mark(**json.loads((checkpoint / MARK).read_text()))


def digest(path: Path) -> str:
    """Of a file or a directory that is kept."""
    return directory_digest(path) if path.is_dir() else file_digest(path)


def _is_intact(checkpoint: Path, out: Path) -> bool:
    try:
        mark = mark_of(checkpoint)
        kept = {name: digest(out / name) for name in mark.kept}
    except (ValueError, TypeError, OSError):
        return False
    there = _digests(checkpoint)
    return mark.files == {name: there.get(name) for name in mark.files} and mark.kept == kept


def _digests(checkpoint: Path) -> dict[str, str]:
    files = (path for path in checkpoint.rglob("*") if path.is_file() and path.name != MARK)
    return {path.relative_to(checkpoint).as_posix(): file_digest(path) for path in sorted(files)}
