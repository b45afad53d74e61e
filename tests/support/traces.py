"""The job that traces a finished training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from holdfast.config.jobs import Trace, Train
from holdfast.config.measurement import Influence
from holdfast.config.refs import FileRef, ModelRef
from holdfast.config.results import Result


def trace_of(trained: Path, **changes: Any) -> Trace:
    """The job that traces a training's directory."""
    train = Train.model_validate_json((trained / "job.json").read_text())
    result = Result.model_validate_json((trained / "result.json").read_text())
    kept = sorted(result.checkpoints, key=lambda checkpoint: checkpoint.step)
    base = train.start if train.stage.lora is not None else None
    refs = [ModelRef(path=str(trained / c.path), digest=c.digest, step=c.step, adapter_of=base) for c in kept]
    names = [f"moments/step-{checkpoint.step:06d}.safetensors" for checkpoint in kept]
    moments = [FileRef(path=trained / name, digest=result.files[name]) for name in names if name in result.files]
    given = {
        "kept": tuple(refs),
        "moments": tuple(moments),
        "rates": (1e-3,) * len(kept),
        "influence": Influence(samples=6, questions=4, batch_size=4),
    }
    return Trace(train=train, data=train.data, **{**given, **changes})
