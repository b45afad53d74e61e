"""Rollouts by vLLM, as TRL drives it, with what TRL 1.16 leaves open.

- TRL hands vLLM prompts whose image tokens are laid out already, and vLLM lays them out again: the model would be asked
  something else than it is trained on (`models.vllm_engine`).
- TRL does not tell vLLM that a vision tower that learns sees images otherwise after a step.
- Every rollout is drawn by a seed of its own, from the study's seed and the step, so that a training that is resumed
  samples what it would have sampled. TRL's engine counts from its own start.
- An adapter is merged into copies. TRL merges it into the weights and takes it out again, by which weights in half
  precision drift (huggingface/trl#6688).
- How far vLLM's probabilities are from the trainer's is looked at after every generation, and a training whose rollouts
  come from another model is stopped.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor
from trl.generation import vllm_generation
from trl.trainer import grpo_trainer

from holdfast.config.jobs import Train
from holdfast.errors import UserError
from holdfast.models.vllm_engine import (
    BANNED,
    Engine,
    as_asked,
    engine_of,
    explained,
    forget_images,
    require_room,
    require_same_prompts,
)
from holdfast.training.vllm_server import Server

DIFFERENCE, MASKED = "sampling/sampling_logp_difference/mean", "sampling/masked"
"""TRL's mean over tokens, in nats; and the share of rollouts, or of tokens, that the correction leaves out."""
FIELD = "trainer.use_vllm"


def engine(job: Train, processor: Any, dtype: str) -> Engine | None:
    """Of a stage that rolls out by vLLM; None of any other."""
    given = job.stage.trainer
    return engine_of(job.start.whole, processor, dtype, job.seed) if given.get("use_vllm") else None


def sampling_arguments(given: dict[str, Any], banned: list[int], ends: list[int]) -> dict[str, Any]:
    """`generation_kwargs` under vLLM's names: nothing is sampled that a completion cannot hold."""
    bias = {**dict.fromkeys(banned, BANNED), **(given.get("logit_bias") or {})}
    return {"stop_token_ids": ends, **given, "logit_bias": bias or None}


@contextmanager
def rolling_out_by(engine: Engine | None) -> Iterator[None]:
    """Within, TRL's trainers roll out by `Rollouts`; without an engine, by what they would."""
    if engine is None:
        yield
        return
    made = vllm_generation.LLM

    def start(**named: Any) -> Any:
        with explained(FIELD, "does not start"):
            return made(**{**named, **engine.arguments()})

    def rollouts(*given: Any, **named: Any) -> Rollouts:
        if named["mode"] != "server":
            return Rollouts(engine, *given, **named)
        url = named["server_base_url"] or f"http://{named['server_host']}:{named['server_port']}"
        server = Server(url.rstrip("/"), named["server_timeout"], engine)
        # It stands where TRL's own engine would.
        with patch.object(vllm_generation, "LLM", lambda **_: server):
            return ServedRollouts(engine, *given, **{**named, "mode": "colocate"})

    with patch.object(vllm_generation, "LLM", start), patch.object(grpo_trainer, "VLLMGeneration", rollouts):
        yield


class Rollouts(vllm_generation.VLLMGeneration):
    """TRL's driver of vLLM."""

    def __init__(self, engine: Engine, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.engine = engine
        self.step, self.drawn = -1, 0
        self._sample = self.llm.generate
        self.llm.generate = self._sample_by_row

    def at(self, step: int) -> None:
        """The optimizer step that what follows is sampled in."""
        self.step, self.drawn = step, self.drawn + 1 if step == self.step else 0

    def generate(self, prompts: list[list[int]], images: Any, num_generations: int, profiler: Any = None) -> Any:
        """As TRL's, whose docstring has the shapes. UserError where vLLM reads another prompt than the trainer."""
        require_room(FIELD, self.llm, prompts, self.max_completion_length)
        asked, given, token = prompts, None, self.engine.image_token
        if images is not None and token is not None:
            asked, given = as_asked(FIELD, prompts, [of or () for of in images], token), [of or None for of in images]
        read, *rest = super().generate(asked, given, num_generations, profiler)
        require_same_prompts(FIELD, prompts, read)
        return prompts, *rest

    def _sample_by_row(self, prompts: list[Any], sampling_params: Any, **named: Any) -> Any:
        """Each row by a seed of its own: rows of a group are the same prompt."""
        rows = [sampling_params.clone() for _ in prompts]
        for row, seed in zip(rows, self._seeds(len(rows)), strict=True):
            row.seed = int(seed)
        return self._sample(prompts, sampling_params=rows, **named)

    def _seeds(self, count: int) -> np.ndarray:
        place = self.accelerator.process_index
        return np.random.SeedSequence([self.engine.seed, self.step, self.drawn, place]).generate_state(count)

    def sync_weights(self) -> None:
        """As TRL's, which would leave images as the last step's vision tower saw them."""
        super().sync_weights()
        forget_images(self.llm)

    def _iter_named_params(self) -> Iterator[tuple[str, Tensor]]:
        if isinstance(self.model, PeftModel) and not self._dist.is_fsdp:
            yield from merged_parameters(self.model)
        else:
            yield from super()._iter_named_params()


class ServedRollouts(Rollouts):
    """The same, by a server."""

    @property
    def vllm_client(self) -> Any:
        """What a trainer asks for the settings of a server; raw log-probabilities are for `require_alike` to see."""
        return SimpleNamespace(get_server_info=lambda: {"model_config": {"logprobs_mode": "processed_logprobs"}})

    def sync_weights(self) -> None:
        """Of all parameters at once."""
        self.llm.load(self._iter_named_params())
        self.llm.reset_prefix_cache()
        forget_images(self.llm)


@torch.no_grad()
def merged_parameters(model: PeftModel) -> Iterator[tuple[str, Tensor]]:
    """The base's names with the weights of base and adapter together; the model stays as it is, to the bit."""
    layers: dict[str, Any] = {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    last, merged = "", None
    for name, parameter in model.named_parameters():
        if model.prefix in name or "original_module" in name:
            continue
        owner, _, rest = name.partition(".base_layer.")
        value = parameter.data
        if rest and owner in layers:
            if merged is None or owner != last:
                # By peft, whose adapters may also scale a weight's columns, or have a bias.
                last, merged = owner, deepcopy(layers[owner])
                merged.merge()
            value = merged.get_base_layer().get_parameter(rest).data
        clean = name.removeprefix("base_model.model.").replace(".base_layer", "")
        yield clean.replace("modules_to_save.default.", ""), value


def require_alike(metrics: dict[str, list[float]], bound: float) -> None:
    """UserError where the last rollouts were drawn from other probabilities than the trainer has."""
    found = metrics[DIFFERENCE][-1]
    if not found <= bound:
        raise UserError(
            f"trainer.use_vllm: log-probabilities of vLLM and of the trainer are {found:.3g} nats apart, the mean over "
            f"the tokens of a generation, and rollout_difference allows {bound:g}; the rollouts are not this model's. "
            "Remove use_vllm, or raise the bound if half precision is why"
        )
