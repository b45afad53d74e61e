"""What happens between two steps of a training: measuring, keeping checkpoints, telling the journal."""

from __future__ import annotations

import math
import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from holdfast import group
from holdfast.journal import METRICS, Journal, read_lines
from holdfast.models.load import save_checkpoint
from holdfast.training.adam_state import save_moments
from holdfast.training.alarms import NON_FINITE, Alarms
from holdfast.training.completions import CompletionLog
from holdfast.training.non_finite import STAYS, NonFiniteWatch
from holdfast.training.resume import digest, mark_complete, mark_of
from holdfast.training.rewards import Rewards

Measure = Callable[[Any, int], dict[str, float]]
REPORT_EVERY = 1.0
"""Seconds between two lines of progress."""
UNREPORTED = ("epoch", "total_flos", "num_tokens")
"""Counters that start over, or count otherwise, when a training is resumed or its data is laid out in advance."""
NONE_AT_ALL = ("reward", "reward_std", "rewards/", "clip_ratio/")
"""TRL's metrics that are NaN where they have no value: no term applies, a term does not, no token counts."""


class StageCallback(TrainerCallback):
    """Measures the model at the scheduled steps, keeps it, and lets TRL write a checkpoint to resume from there."""

    def __init__(self, out: Path, journal: Journal, measure: Measure, processor: Any) -> None:
        self.out = out
        self.journal = journal
        self.measure = measure
        self.processor = processor
        self.steps: list[int] = []
        self.log: CompletionLog | None = None
        self.rewards: Rewards | None = None
        self.alarms = Alarms({})
        self.non_finite = NonFiniteWatch()
        self.moments = False
        self.whole: Callable[[Any], Any] | None = None
        """Puts a model together whose parts lie on several processes, for keeping."""
        self.placed: Callable[[Any], Any] = lambda model: model
        """Moves it to where it is measured."""
        self.leads = group.number() == 0
        """Of several processes, the first measures and writes."""
        self.kept: dict[str, str] = {}
        self.dtype: torch.dtype | None = None
        """Of kept weights; by default the model's."""
        self.shown: dict[str, float] = {}
        self.earlier = 0.0
        self.started = self.reported = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **others: Any
    ) -> None:
        """Logged and saved together with the measurement, so that a resumed training logs the same.

        Raises:
            UserError: the step left weights that are not finite.
        """
        if not self.non_finite.after_step(model):
            self.journal.log(state.global_step, {"train/loss": math.nan, **self.non_finite.counted()})
            self._stop(state.global_step, "its weights are not finite")
        if state.global_step in self.steps:
            self._keep(model, state.global_step)
            if self.moments:
                self._keep_moments(model, others["optimizer"], state.global_step)
            control.should_log = True
            control.should_save = state.global_step < state.max_steps
        if state.global_step == state.max_steps or time.monotonic() - self.reported > REPORT_EVERY:
            self.reported = time.monotonic()
            self.journal.progress(state.global_step, state.max_steps, **self.shown)

    def _keep(self, model: Any, step: int) -> None:
        if self.whole is not None:
            with untouched_randomness():
                model = self.whole(model)
        if not self.leads:
            return
        place = kept_path(self.out, step)
        shutil.rmtree(place, ignore_errors=True)
        save_checkpoint(model, self.processor, place, self.dtype)
        with untouched_randomness(), evaluating(model):
            measured = self.measure(self.placed(model), step)
        if self.rewards is not None:
            self.rewards.save(place)
        name = place.relative_to(self.out).as_posix()
        self.kept[name] = digest(place)
        where = {"step": step, "path": name, "digest": self.kept[name]}
        self._record(step, measured, where)
        self._show(measured)
        if self.log is not None:
            self.log.write()

    def _keep_moments(self, model: Any, optimizer: Any, step: int) -> None:
        path = moments_path(self.out, step)
        save_moments(model, optimizer, path)
        if self.leads and path.is_file():
            self.kept[path.relative_to(self.out).as_posix()] = digest(path)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        """TRL's metrics under TRL's names.

        Raises:
            UserError: the loss stays without a finite value.
        """
        if "train_runtime" in logs:
            return
        numbers = {name: float(value) for name, value in logs.items() if _has_value(name, value)}
        metrics = {f"train/{name}": value for name, value in numbers.items()} | self.non_finite.counted()
        self._record(state.global_step, metrics)
        if not self.non_finite.logged(metrics):
            self._stop(state.global_step, f"its loss was not finite {STAYS} logged times in a row")
        self.shown |= {name: numbers[name] for name in ("loss", "reward") if name in numbers}
        if self.log is not None and self.leads:
            self.log.write()

    def _record(self, step: int, metrics: dict[str, float], checkpoint: dict[str, Any] | None = None) -> None:
        """Log, and then what the metrics set off."""
        self.journal.log(step, metrics, checkpoint)
        for alarm in self.alarms.take(step, metrics):
            self.journal.alarm(alarm.step, alarm.name, alarm.sentence)

    def _stop(self, step: int, what: str) -> None:
        """End a training that has lost its numbers, before it is measured or kept as if it had not."""
        self.journal.alarm(step, NON_FINITE, f"{what}, so training was stopped")
        raise self.non_finite.failure(f"{what} at step {step}")

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """TRL has written its last file of the checkpoint; what we remember joins it."""
        group.wait_for_all()
        if not self.leads:
            return
        checkpoint = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        if self.rewards is not None:
            self.rewards.save(checkpoint)
        if self.log is not None:
            self.log.save(checkpoint)
        self.journal.save(checkpoint / METRICS)
        mark_complete(checkpoint, self.seconds, self.kept)

    @property
    def seconds(self) -> float:
        """Since the training began, the time of interrupted processes included."""
        return self.earlier + time.monotonic() - self.started

    def go_on_from(self, checkpoint: Path) -> None:
        """Take up what an intact checkpoint remembers."""
        mark = mark_of(checkpoint)
        self.kept, self.earlier = dict(mark.kept), mark.seconds
        if self.rewards is not None:
            self.rewards.load(checkpoint)
        if self.log is not None:
            self.log.load(checkpoint)
        self.journal.restore(checkpoint / METRICS)
        for line in read_lines(self.journal.path):
            self._show(line["metrics"])
            self.non_finite.take(line["metrics"])
            self.alarms.take(line["step"], line["metrics"])

    def remove_unkept(self) -> None:
        """Remove what an interrupted process did after the checkpoint from which this one goes on."""
        if not self.leads:
            return
        for place in [*(self.out / "checkpoints").glob("*"), *(self.out / "moments").glob("*")]:
            if place.relative_to(self.out).as_posix() not in self.kept:
                shutil.rmtree(place) if place.is_dir() else place.unlink()

    def _show(self, measured: dict[str, float]) -> None:
        for name, value in measured.items():
            if name == "validation/prior/mean/accuracy":
                self.shown["prior"] = value
            if name.startswith("validation/target/") and name.endswith("/score"):
                self.shown["score"] = value


def _has_value(name: str, value: float | None) -> bool:
    """Whether a metric of TRL's tells anything; a NaN that means no value at all is no failure."""
    if value is None or name in UNREPORTED:
        return False
    return not (math.isnan(value) and name.startswith(NONE_AT_ALL))


def kept_path(out: Path, step: int) -> Path:
    """Where a kept checkpoint lies."""
    return out / "checkpoints" / f"step-{step:06d}"


def moments_path(out: Path, step: int) -> Path:
    """Where the optimizer's second moments at a kept checkpoint lie."""
    return out / "moments" / f"step-{step:06d}.safetensors"


@contextmanager
def untouched_randomness() -> Iterator[None]:
    """Leave every random state as it was found, so that measuring changes no training."""
    python, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        yield
    random.setstate(python)
    np.random.set_state(numpy_state)


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Evaluation mode for a while."""
    training = model.training
    model.eval()
    yield
    model.train(training)
