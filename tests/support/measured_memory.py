"""Run by the tests in a process of its own: trains a stage for two steps and prints what its peak took, in bytes.

python measured_memory.py JOB.json OUT
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import torch

from holdfast.config.jobs import Train
from holdfast.journal import Journal
from holdfast.models.load import load_processor
from holdfast.models.shape import shape_of
from holdfast.training.callback import StageCallback
from holdfast.training.stage import build


def most_resident() -> int:
    """Bytes; getrusage would count what the process that started this one has had."""
    [kilobytes] = re.findall(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(kilobytes) * 1024


def main(job: Path, out: Path) -> None:
    torch.set_num_threads(1)
    train = Train.model_validate_json(job.read_text())
    processor = load_processor(train.start)
    warm = torch.randn(2000, 2000) @ torch.randn(2000, 2000)
    del warm
    before = most_resident()
    callback = StageCallback(out, Journal(out), lambda model, step: {}, processor)
    trainer = build(train, processor, out, callback)
    callback.steps = []
    trainer.train()
    peak = most_resident() - before
    print("MEASURED", json.dumps({"peak": peak, "shape": shape_of(trainer.model)._asdict()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
