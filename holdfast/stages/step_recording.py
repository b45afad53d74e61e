"""What a training leaves to its ledger: weights, moments, factors and samples of every step, taken down as it trains.

It changes nothing in the training. What is missing of it, a ledger makes again by training once more.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from transformers import TrainerCallback
from trl import GRPOTrainer, SFTTrainer

from holdfast import group
from holdfast.config.jobs import STEPS, Train
from holdfast.config.refs import ModelRef
from holdfast.data.shards import Question
from holdfast.data.training_set import replay_rows, train_rows
from holdfast.errors import UserError
from holdfast.influence.engine.gradients import selection
from holdfast.influence.replay.steps import (
    StepFacts,
    StepStore,
    Taught,
    clip_factor,
    parameter_steps,
    require_linear,
)
from holdfast.models.load import device
from holdfast.stages.accountable import require_rules
from holdfast.stages.needs import FLOAT32
from holdfast.stages.sources import source_digest
from holdfast.stages.token_slopes import ReinforcedWatch, watch_supervised
from holdfast.training.callback import kept_path
from holdfast.training.sharded import strategy_of
from holdfast.training.stage import learner

BEGUN, WHOLE = "begun.json", "whole.json"
"""Written first, and last."""
LEDGER = "ledger"
"""The kind of stage whose sources say how steps are written and read."""


class Recorded(NamedTuple):
    """A training that was taken down."""

    model: Any
    """With the parameters that learned; their values are in the store."""
    store: StepStore
    steps: int
    questions: list[Question]
    """All that it may have learned from."""
    temperature: float
    """Of the log-probabilities that the loss reads."""
    seconds: float
    """What it took to train again; 0 if it was taken down as it trained."""


class StepTaker(TrainerCallback):
    """Takes down weights, moments and factors of every step, and what it learned from."""

    def __init__(self, job: Train, trainer: SFTTrainer | GRPOTrainer, store: StepStore, steps: int = 0) -> None:
        """After the first `steps`, which an interrupted training took down.

        Raises:
            UserError: something moves the weights that no rule covers.
        """
        self.store = store
        self.steps = steps
        self.now: list[Taught] = []
        self.clip = 1.0
        clip_norm = trainer._clip_grad_norm

        def clipping(model: Any) -> Any:
            norm = clip_norm(model)
            self.clip = clip_factor(float(norm), trainer.args.max_grad_norm)
            return norm

        _watch(job, trainer, self.now.append, steps)
        trainer._clip_grad_norm = clipping  # type: ignore[method-assign]
        trainer.add_callback(self)

    def keep(self, model: Any, optimizer: Any = None, facts: StepFacts | None = None) -> None:
        """Write down the step that was taken; of several processes, each its own samples."""
        store = self.store.of_rank(group.number())
        if group.number():
            store.keep(self.steps, None, taught=self.now)
        else:
            store.keep(self.steps, model, optimizer, facts, self.now)

    def on_train_begin(self, *_: Any, model: Any = None, optimizer: Any = None, **__: Any) -> None:
        """Raises:
        UserError: the optimizer is none that a rule covers.
        """
        require_linear(_plain(optimizer))
        if not self.steps:
            self.keep(model)

    def on_optimizer_step(self, *_: Any, model: Any = None, optimizer: Any = None, **__: Any) -> None:
        """After the step, while its gradients and its rate are still there."""
        self.steps += 1
        self.keep(model, _plain(optimizer), StepFacts(parameter_steps(model, _plain(optimizer)), self.clip))
        self.now.clear()
        self.clip = 1.0


class Recorder:
    """Takes a training down as it trains, if the disk has room for it."""

    def __init__(self, job: Train, out: Path) -> None:
        self.job, self.store = job, StepStore(out / STEPS)
        self.told: list[str] = []

    @property
    def place(self) -> Path:
        """Where this process writes."""
        return self.store.of_rank(group.number()).place

    def watch(self, trainer: SFTTrainer | GRPOTrainer, kept: Mapping[str, str], done: int) -> None:
        """`kept` will have the digests of the kept checkpoints by their paths; an interrupted training took the `done`
        first steps.

        Raises:
            UserError: something moves the weights that no rule covers.
        """
        if not group.of_the_first(lambda: self._begin(done)):
            return
        size = steps_size(trainer)
        free = shutil.disk_usage(self.store.place.parent).free
        # The same again for what else is at work.
        if group.number() == 0 and free < 2 * size:
            self.give_up(f"they take {size / 1e9:.1f} GB and the disk has {free / 1e9:.1f} GB")
        else:
            _OptionalTaker(self, trainer, kept, done)

    def _begin(self, done: int) -> bool:
        """Whether all steps until here are there, as this code and as many processes write them."""
        said = {"code": source_digest(LEDGER), "ranks": group.size()}
        stores = [self.store.of_rank(number) for number in range(group.size())]
        if done and _read(self.store.place / BEGUN) == said and all(one.has(done) for one in stores):
            return True
        shutil.rmtree(self.store.place, ignore_errors=True)
        if done:
            return False
        with suppress(OSError):
            self.store.place.mkdir(parents=True)
            (self.store.place / BEGUN).write_text(json.dumps(said))
        return True

    def give_up(self, why: str) -> None:
        """Go on without, and say so."""
        shutil.rmtree(self.place, ignore_errors=True)
        self.told.append(f"its steps were not kept for its ledger ({why}), which will train it once more")


class _OptionalTaker(StepTaker):
    """A disk that refuses is no reason to stop the training."""

    def __init__(
        self, recorder: Recorder, trainer: SFTTrainer | GRPOTrainer, kept: Mapping[str, str], done: int
    ) -> None:
        self.recorder, self.kept = recorder, kept
        super().__init__(recorder.job, trainer, recorder.store, done)

    def keep(self, *given: Any) -> None:
        if self.recorder.told:
            return
        try:
            super().keep(*given)
        except (OSError, SafetensorError) as error:
            self.recorder.give_up(f"the disk refused: {error}")

    def on_train_end(self, args: Any, *_: Any, **__: Any) -> None:
        if self.recorder.told:
            return
        said = {"code": source_digest(LEDGER), "kept": self.kept, "steps": self.steps}
        said |= {"temperature": temperature(args), "ranks": group.size()}
        try:
            (self.recorder.place / WHOLE).write_text(json.dumps(said))
        except OSError as error:
            self.recorder.give_up(f"the disk refused: {error}")


def recorded(job: Train, kept: Sequence[ModelRef], place: Path) -> Recorded | None:
    """What lies in a directory, if it is the whole training that left these checkpoints, as this code writes it."""
    said = _read(place / WHOLE)
    if said is None:
        return None
    store = StepStore(place)
    if not all((store.of_rank(number).place / WHOLE).is_file() for number in range(said["ranks"])):
        return None
    if said["code"] != source_digest(LEDGER) or any(
        said["kept"].get(kept_path(Path(), ref.step).as_posix()) != ref.digest for ref in kept
    ):
        return None
    model = learner(job, device(job.device))
    return Recorded(model, store, said["steps"], learnable(job), said["temperature"], 0.0)


def _read(file: Path) -> Any:
    """None of what is not there, or is torn."""
    try:
        return json.loads(file.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def steps_size(trainer: SFTTrainer | GRPOTrainer) -> int:
    """Bytes that the steps of a training take on the disk: weights and both moments of each."""
    learning = sum(value.numel() for value in selection(trainer.model).values())
    return 3 * FLOAT32 * learning * (trainer.args.max_steps + 1)


def learnable(job: Train) -> list[Question]:
    """All questions that a stage may have learned from."""
    return [row.question for row in (*train_rows(job), *replay_rows(job))]


def temperature(args: Any) -> float:
    """Of the log-probabilities that a trainer's loss reads."""
    return float(getattr(args, "temperature", 1.0))


def _watch(job: Train, trainer: SFTTrainer | GRPOTrainer, take: Callable[[Taught], None], done: int) -> None:
    """Raises:
    UserError: something moves the weights that no rule covers.
    """
    args: Any = trainer.args
    if strategy_of(args) != "ddp":
        raise UserError("influence.ledger: no rule covers parts of a model; set compute.strategy to ddp")
    require_rules(job.stage, args, trainer.model)
    batch = args.per_device_train_batch_size
    before = done * args.gradient_accumulation_steps * batch
    if isinstance(trainer, GRPOTrainer):
        ReinforcedWatch(trainer, take, before // args.num_iterations)
        return
    questions = learnable(job)
    given: Any = trainer.train_dataset
    places = given.with_format(None)["row"]
    # Processes take batches in turn.
    own = [place for index, place in enumerate(places) if index // batch % group.size() == group.number()]
    watch_supervised(trainer, [(place, questions[place].id) for place in own[before:]], take)


def _plain(optimizer: Any) -> torch.optim.Optimizer:
    """Without accelerate around it."""
    return getattr(optimizer, "optimizer", optimizer)
