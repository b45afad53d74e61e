"""A finished stage trained again by its own trainer, bit for bit, and taken down step by step."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import torch

from holdfast.config.jobs import Train
from holdfast.config.refs import ModelRef
from holdfast.errors import UserError
from holdfast.influence.replay.steps import StepStore
from holdfast.journal import Journal
from holdfast.models.image_feature_cache import cached_image_features
from holdfast.models.load import load_processor
from holdfast.stages.step_recording import Recorded, StepTaker, learnable, steps_size, temperature
from holdfast.training.callback import StageCallback, kept_path
from holdfast.training.stage import build

PHASES = 3
"""Of a ledger: the training again, benchmarks at its nodes, and its steps backwards."""


def replay(job: Train, kept: tuple[ModelRef, ...], store: StepStore, scratch: Path, journal: Journal) -> Recorded:
    """Train again; `kept` are all checkpoints that the training left.

    Raises:
        UserError: a checkpoint comes out differently, the loss or the optimizer is none that a rule covers, or the
            disk has no room for the steps.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    processor = load_processor(job.start)
    callback = Rerun(scratch, kept, processor, journal)
    callback.dtype = {"bfloat16": torch.bfloat16}.get(job.keep_dtype)
    trainer = build(job, processor, scratch, callback)
    _require_room(steps_size(trainer), scratch)
    taker = StepTaker(job, trainer, store)
    started = time.monotonic()
    with cached_image_features(trainer.model, {}):
        trainer.train()
    seconds = time.monotonic() - started
    # A model that was loaded has no autocast around it either.
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    return Recorded(model, store, taker.steps, learnable(job), temperature(trainer.args), seconds)


def _require_room(size: int, place: Path) -> None:
    free = shutil.disk_usage(place).free
    if free < size:
        raise UserError(
            f"influence.ledger: the steps of this training take {size / 1e9:.1f} GB and the disk of {place} has "
            f"{free / 1e9:.1f} GB; make room, train an adapter (lora), or leave influence.ledger out"
        )


class Rerun(StageCallback):
    """Keeps what the stage kept, without measuring it, holds it against what was recorded, and lets it go."""

    def __init__(self, out: Path, kept: tuple[ModelRef, ...], processor: Any, journal: Journal) -> None:
        super().__init__(out, Journal(out), lambda model, step: {}, processor)
        self.recorded = {ref.step: ref.digest for ref in kept}
        self.told = journal

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **others: Any) -> None:
        """As it was, but nothing is written to go on from.

        Raises:
            UserError: a kept checkpoint comes out differently.
        """
        super().on_step_end(args, state, control, model, **others)
        control.should_save = False
        # Benchmarks and the way back, which follow, count as much as the training.
        self.told.progress(state.global_step, PHASES * state.max_steps)
        if state.global_step in self.steps:
            name = kept_path(Path(), state.global_step).as_posix()
            if self.kept[name] != self.recorded.get(state.global_step):
                earlier = max((step for step in self.steps if step < state.global_step), default=0)
                raise UserError(
                    f"influence.ledger: trained again, the checkpoint of step {state.global_step} is another than the "
                    f"recorded one, so some step after {earlier} was taken differently; replay where the training ran, "
                    "with the versions and threads that it had"
                )
