"""Models on the straight line between two others (WiSE-FT, arXiv 2109.01903): nothing is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from holdfast.config.jobs import Blend
from holdfast.config.refs import directory_digest
from holdfast.journal import Journal
from holdfast.models.load import load_model, load_processor, save_checkpoint


def interpolate(job: Blend, out: Path, journal: Journal) -> dict[str, Any]:
    """Leave start + share · (end − start) as checkpoint 1, 2, …, for every share."""
    processor, model, end = load_processor(job.start), load_model(job.start), load_model(job.end).state_dict()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    for step, share in enumerate(job.shares, 1):
        model.load_state_dict({name: torch.lerp(value, end[name], share) for name, value in start.items()})
        place = out / "checkpoints" / f"step-{step:06d}"
        save_checkpoint(model, processor, place)
        kept = {"step": step, "path": place.relative_to(out).as_posix(), "digest": directory_digest(place)}
        journal.log(step, {"share": share}, kept)
    return {"shares": list(job.shares)}
