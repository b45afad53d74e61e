"""Holdfast on the peers' workload: with the targets' gradients computed in every call, as peers do, and given.

Run, from bench/peers: PYTHONPATH=.:../.. ../../.venv/bin/python ours.py TIME TARGETS [lora]
"""

from __future__ import annotations

import torch
from common import build, report, setting, tokens
from torch import Tensor

from holdfast.influence.engine.engine import Engine
from holdfast.influence.engine.gradients import Gradient, batch_gradient
from holdfast.models.encode import TeacherForced, teacher_forced


def batch(ids: Tensor) -> TeacherForced:
    """The last three quarters of each sample are its completion."""
    asked = ids.shape[1] // 4
    prompts = [{"input_ids": row[:asked], "attention_mask": torch.ones(asked, dtype=torch.long)} for row in ids]
    return teacher_forced(prompts, [row[asked:].tolist() for row in ids], 0, torch.device("cpu"))


def main() -> None:
    train, queries = tokens(*setting())
    samples, singles = batch(train), [batch(query[None]) for query in queries]
    model = build()

    def targets() -> list[Gradient]:
        return [batch_gradient(model, single) for single in singles]

    def measured(engine: Engine) -> tuple[Tensor, Tensor]:
        found = engine.measure(samples)
        return found.norm2, found.dot

    held = Engine(model, targets())
    report("Holdfast, targets given", model, lambda: measured(held))
    report("Holdfast", model, lambda: measured(Engine(model, targets())))


if __name__ == "__main__":
    main()
