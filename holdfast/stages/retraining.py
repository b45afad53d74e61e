"""A finished stage trained again by its own trainer, bit for bit, and taken down step by step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import TrainerCallback
from trl import GRPOTrainer, SFTTrainer

from holdfast.config.jobs import Train
from holdfast.config.refs import ModelRef
from holdfast.data.shards import Question
from holdfast.data.training_set import replay_rows, train_rows
from holdfast.errors import UserError
from holdfast.influence.replay.steps import StepFacts, StepStore, clip_factor, parameter_steps, require_linear
from holdfast.influence.replay.taught import Taught
from holdfast.journal import Journal
from holdfast.models.image_feature_cache import cached_image_features
from holdfast.models.load import load_processor
from holdfast.stages.token_slopes import ReinforcedWatch, watch_supervised
from holdfast.training.callback import StageCallback
from holdfast.training.stage import build

PHASES = 3
"""Of a ledger: the training again, benchmarks at its nodes, and its steps backwards."""


class Replayed(NamedTuple):
    """What was taken down."""

    model: Any
    """At the training's end."""
    facts: list[StepFacts]
    taught: list[list[Taught]]
    """The samples of each step."""
    questions: list[Question]
    """All that it may have learned from."""
    seconds: float
    temperature: float
    """Of the log-probabilities that the loss reads."""


def replay(job: Train, kept: tuple[ModelRef, ...], store: StepStore, scratch: Path, journal: Journal) -> Replayed:
    """Train again; `kept` are all checkpoints that the training left.

    Raises:
        UserError: a checkpoint comes out differently, or the loss or the optimizer is none that a rule covers.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    processor = load_processor(job.start)
    callback = Rerun(scratch, kept, processor, journal)
    callback.dtype = {"bfloat16": torch.bfloat16}.get(job.keep_dtype)
    trainer = build(job, processor, scratch, callback)
    taker = StepTaker(trainer, store)
    trainer.add_callback(taker)
    questions = [row.question for row in (*train_rows(job), *replay_rows(job))]
    _watch(job, trainer, taker, questions)
    started = time.monotonic()
    with cached_image_features(trainer.model, {}):
        trainer.train()
    temperature = float(getattr(trainer.args, "temperature", 1.0))
    return Replayed(trainer.model, taker.facts, taker.taught, questions, time.monotonic() - started, temperature)


def _watch(job: Train, trainer: SFTTrainer | GRPOTrainer, taker: StepTaker, questions: Sequence[Question]) -> None:
    """Raises:
    UserError: something moves the weights that no rule covers.
    """
    args: Any = trainer.args
    model: Any = trainer.model
    stage = job.stage
    added = {"kl": stage.kl, "l2": stage.l2, "ewc": stage.ewc, "talr": getattr(stage, "talr", None), "fsdp": args.fsdp}
    for name, there in added.items():
        if there:
            raise UserError(f"influence.ledger: no rule covers a stage's `{name}`; leave it out, or influence.ledger")
    if args.fp16:
        raise UserError("influence.ledger: float16 scales its losses, which no rule covers; train in bfloat16")
    dropping = [name for name, one in model.named_modules() if getattr(one, "p", 0) and _drops(one)]
    if dropping:
        raise UserError(f"influence.ledger: {dropping[0]} drops activations at random; set its dropout to 0")
    if isinstance(trainer, GRPOTrainer):
        ReinforcedWatch(trainer, taker.take)
        return
    given: Any = trainer.train_dataset
    places = given.with_format(None)["row"]
    watch_supervised(trainer, [(place, questions[place].id) for place in places], taker.take)


def _drops(module: Any) -> bool:
    return isinstance(module, torch.nn.modules.dropout._DropoutNd)


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
            name = f"checkpoints/step-{state.global_step:06d}"
            if self.kept[name] != self.recorded.get(state.global_step):
                earlier = max((step for step in self.steps if step < state.global_step), default=0)
                raise UserError(
                    f"influence.ledger: trained again, the checkpoint of step {state.global_step} is another than the "
                    f"recorded one, so some step after {earlier} was taken differently; replay where the training ran, "
                    "with the versions and threads that it had"
                )


class StepTaker(TrainerCallback):
    """Takes down weights, moments and factors of every step, and what it learned from."""

    def __init__(self, trainer: SFTTrainer | GRPOTrainer, store: StepStore) -> None:
        self.store = store
        self.facts: list[StepFacts] = []
        self.taught: list[list[Taught]] = []
        self.now: list[Taught] = []
        self.clip = 1.0
        clip_norm = trainer._clip_grad_norm

        def clipping(model: Any) -> Any:
            norm = clip_norm(model)
            self.clip = clip_factor(float(norm), trainer.args.max_grad_norm)
            return norm

        trainer._clip_grad_norm = clipping  # type: ignore[method-assign]

    def take(self, sample: Taught) -> None:
        """A sample of the step that is being taken."""
        self.now.append(sample)

    def on_train_begin(self, *_: Any, model: Any = None, optimizer: Any = None, **__: Any) -> None:
        """Raises:
        UserError: the optimizer is none that a rule covers.
        """
        require_linear(_plain(optimizer))
        self.store.keep(0, model, None)

    def on_optimizer_step(self, *_: Any, model: Any = None, optimizer: Any = None, **__: Any) -> None:
        """After the step, while its gradients and its rate are still there."""
        self.facts.append(StepFacts(parameter_steps(model, _plain(optimizer)), self.clip))
        self.taught.append(self.now)
        self.now, self.clip = [], 1.0
        self.store.keep(len(self.facts), model, _plain(optimizer))


def _plain(optimizer: Any) -> torch.optim.Optimizer:
    """Without accelerate around it."""
    return getattr(optimizer, "optimizer", optimizer)
