"""Trainers of the same work, ours and TRL's plain GRPOTrainer, and how long each part of their steps takes."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback, set_seed
from trl import GRPOTrainer

from holdfast.config.methods import GRPO
from holdfast.config.refs import ModelRef
from holdfast.data.shards import Question
from holdfast.models.image_feature_cache import cached_image_features
from holdfast.models.load import save_checkpoint
from holdfast.models.lora import adapted
from holdfast.models.precision import learn_in_float32
from holdfast.models.vllm_engine import Engine, engine_of
from holdfast.training.arguments import length, set_checkpointing, trainer_config
from holdfast.training.grpo import grpo_trainer
from holdfast.training.prompt_sharing_trainer import PromptSharingTrainer
from holdfast.training.rewards import Reward, Rewards, token_counter
from holdfast.training.stage import LARGE
from holdfast.training.vllm_rollouts import DIFFERENCE, rolling_out_by

PARTS = {"rollout": "_generate", "reward": "_calculate_rewards", "log-probs": "_get_per_token_logps_and_entropies"}
"""What is measured of a generation, by the method of TRL's trainer that does it."""
COLUMNS = (*PARTS, "update", "rest", "step")
Seconds = dict[str, float]
ROOM = 1024
"""Tokens that vLLM has room for: a prompt and its completion, of any shape."""
VLLM_NAMES = {"min_new_tokens": "min_tokens"}
"""Of what the benches ask for, by transformers' names."""


class Work(NamedTuple):
    """What all trainers get."""

    load: Callable[[], Any]
    """Makes the base, the same every time."""
    processor: Any
    stage: GRPO
    where: torch.device
    ask: Callable[[int], list[Question]]
    """Makes so many questions."""
    half: bool = False
    """Whether a GPU computes in bfloat16."""
    checkpointing: bool | None = None
    """By default as a study has it: above a billion parameters."""

    def config(self) -> Any:
        """TRL's arguments for the steps of one generation."""
        config: Any = trainer_config(self.stage, 0, machine(self.where, self.half))
        config.max_steps = length(config, 1).period
        return config

    def by_vllm(self) -> Work:
        """The same with rollouts by vLLM, as a stage asks for them."""
        given = self.stage.trainer.get("generation_kwargs", {})
        own = {VLLM_NAMES.get(name, name): value for name, value in given.items()}
        by_vllm = {"use_vllm": True, "vllm_max_model_length": ROOM, "generation_kwargs": own}
        return self._replace(stage=self.stage.model_copy(update={"trainer": {**self.stage.trainer, **by_vllm}}))

    def engine(self, place: Path) -> Engine | None:
        """What vLLM starts with, written to a place; None where it does not roll out."""
        if not self.stage.trainer.get("use_vllm"):
            return None
        save_checkpoint(self.load(), self.processor, place)
        kept = ModelRef(path=str(place), digest="")
        return engine_of(kept, self.processor, "bfloat16" if self.half else "float32", 0)


def machine(where: torch.device, half: bool) -> dict[str, Any]:
    """TRL's arguments that say where it computes, and in which precision; nothing is saved."""
    return {"output_dir": tempfile.gettempdir(), "use_cpu": where.type == "cpu", "bf16": half, "fp16": False}


class Side:
    """One of the trainers, and how long each part of its steps takes."""

    def __init__(self, kind: type[GRPOTrainer], work: Work, prompts: Dataset) -> None:
        model = learn_in_float32(adapted(work.load(), work.stage, 0))
        config = work.config()
        large = model.num_parameters() > LARGE
        set_checkpointing(config, large if work.checkpointing is None else work.checkpointing)
        terms = Rewards(work.stage.rewards, config.num_generations, token_counter(work.processor.tokenizer))
        rewards = {name: _named(name, reward) for name, reward in terms.functions().items()}
        made: Any = kind  # grpo_trainer's own kind is the one of ours.
        with tempfile.TemporaryDirectory() as place, rolling_out_by(work.engine(Path(place) / "model")):
            self.trainer = grpo_trainer(made, model, work.processor, config, (prompts, rewards))
        self.features: dict[bytes, Any] | None = {} if kind is PromptSharingTrainer else None
        self.clock = Clock(self.trainer)
        self.peak = 0
        """Bytes of a GPU that were taken at most."""
        self.trainer.remove_callback(PrinterCallback)
        self.trainer.add_callback(self.clock)

    def cached(self) -> Any:
        """As a stage trains: images are encoded once."""
        return nullcontext() if self.features is None else cached_image_features(self.trainer.model, self.features)

    def round(self, prompts: Dataset, seed: int) -> Seconds:
        """One generation, and the steps that learn from it."""
        self.trainer.train_dataset = prompts
        # Steps begin anew, and weights that were sent in a step 0 would not be sent again.
        self.trainer._last_loaded_step = -1
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        set_seed(seed)
        with self.cached():
            self.trainer.train()
        if torch.cuda.is_available():
            self.peak = max(self.peak, torch.cuda.max_memory_allocated())
        return self.clock.read(self.trainer.args.max_steps)

    def difference(self) -> float:
        """Nats between vLLM's log-probabilities and the trainer's, the mean over tokens of the last rollouts."""
        logged = [line[DIFFERENCE] for line in self.trainer.state.log_history if DIFFERENCE in line]
        return float(logged[-1])

    def completions(self) -> Counter[tuple[int, ...]]:
        """Tokens of the last round's rollouts."""
        batches: Any = self.trainer._buffered_inputs
        rows = (pair for one in batches for pair in zip(one["completion_ids"], one["completion_mask"], strict=True))
        return Counter(tuple(ids[mask.bool()].tolist()) for ids, mask in rows)

    def learned(self, batch: dict[str, Any]) -> tuple[float, list[torch.Tensor]]:
        """The loss of a batch, and its gradient."""
        model: Any = self.trainer.model
        model.train()
        model.zero_grad()
        with self.cached():
            loss = self.trainer.compute_loss(model, dict(batch))
            loss.backward()
        found = [value.grad.clone() for value in model.parameters() if value.grad is not None]
        model.zero_grad()
        return loss.item(), found


def _named(name: str, reward: Reward) -> Reward:
    """As TRL wants a reward: a function with a name."""

    def paid(**columns: Any) -> list[float]:
        return reward(**columns)

    paid.__name__ = name
    return paid


class Clock(TrainerCallback):
    """Adds up the seconds of a trainer's steps, and those inside some of its methods."""

    def __init__(self, trainer: Any) -> None:
        self.seconds: Counter[str] = Counter()
        for part, name in {**PARTS, "prepare": "_prepare_inputs"}.items():
            setattr(trainer, name, self._timed(part, getattr(trainer, name)))

    def _timed(self, part: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            # The loss reads log-probabilities too, with gradients: these are the update's.
            counts = part != "log-probs" or not torch.is_grad_enabled()
            started = now()
            found = method(*given, **named)
            self.seconds[part] += (now() - started) * counts
            return found

        return call

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.started = now()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds["step"] += now() - self.started

    def read(self, steps: int) -> Seconds:
        """Of a step, by column; begins anew."""
        each = {name: self.seconds[name] / steps for name in (*PARTS, "prepare", "step")}
        self.seconds.clear()
        prepare = each.pop("prepare")
        return {**each, "update": each["step"] - prepare, "rest": prepare - sum(each[part] for part in PARTS)}


def now() -> float:
    """Seconds, once the GPU has done what it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class Agreement(NamedTuple):
    """Of the two trainers, in the last round."""

    same: int
    """Rollouts that both sampled, of `rollouts`."""
    rollouts: int
    loss: float
    """Difference of one batch's losses."""
    gradient: float
    """‖ours − plain‖ / ‖plain‖ of its gradients."""


def agreement(plain: Side, ours: Side) -> Agreement:
    """The batch is the plain trainer's, with advantages drawn at random, since rewards may all be alike."""
    theirs = plain.completions()
    buffered: Any = plain.trainer._buffered_inputs
    batch = dict(buffered[0])
    drawn = torch.randn(batch["advantages"].shape, generator=torch.Generator().manual_seed(0))
    batch["advantages"] = drawn.to(batch["advantages"])
    (loss, expected), (other, found) = plain.learned(batch), ours.learned(batch)
    apart = sum((one - two).square().sum() for one, two in zip(found, expected, strict=True))
    size = sum(one.square().sum() for one in expected)
    same = (theirs & ours.completions()).total()
    return Agreement(same, theirs.total(), abs(loss - other), float((apart / size) ** 0.5))
