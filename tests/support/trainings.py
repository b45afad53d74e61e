"""A training in this process: its weights, and what it logged."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from holdfast.config.jobs import Train
from holdfast.evaluation.stage import validating
from holdfast.journal import Journal, read_lines
from holdfast.models.load import load_processor
from holdfast.training.stage import train


def trained(job: Train, out: Path, broken_at: int = 0, alongside: Any = None) -> dict[str, torch.Tensor]:
    """The last kept weights, or adapter; the process may be killed while it measures a step."""
    out.mkdir(exist_ok=True)
    processor = load_processor(job.start)
    ask = validating(job, processor)

    def measure(model: Any, step: int) -> dict[str, float]:
        if step == broken_at:
            raise KeyboardInterrupt
        return ask(model, step)

    train(job, out, Journal(out), measure, alongside)
    return load_file(max((out / "checkpoints").glob("*/*model.safetensors")))


def logged(out: Path, name: str) -> list[float]:
    """A metric's values, in order."""
    lines = [line.get("metrics", {}) for line in read_lines(out / "metrics.jsonl")]
    return [line[name] for line in lines if name in line]
