"""Completions by vLLM, of the model that transformers holds beside it, and held to that model.

One engine serves all checkpoints of a stage: each one's weights are put into it. What vLLM read of every prompt is
compared with what transformers reads, and its log-probabilities with the model's.
"""

from __future__ import annotations

import os
import weakref
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from holdfast import group
from holdfast.config.jobs import Evaluate, Predict, Sample
from holdfast.config.measurement import Vllm
from holdfast.data.chat import pictures
from holdfast.errors import UserError
from holdfast.evaluation.generate import Reader, Sampling, ends, score
from holdfast.models.encode import Encoded
from holdfast.models.load import placeholder_ids
from holdfast.models.precision import base_dtype
from holdfast.models.vllm_engine import (
    BANNED,
    Engine,
    as_asked,
    engine_of,
    explained,
    forget_images,
    require_room,
    require_same_prompts,
    require_vllm,
)

FIELD = "evaluation.vllm"
ROWS = 512
"""Completions that are asked for at a time: vLLM prepares the images of all of them first."""


def decoder_of(job: Evaluate | Predict | Sample, processor: Any) -> VllmDecoder | None:
    """The decoder of a stage that asks for vLLM; None of any other."""
    if job.vllm is None:
        return None
    if group.size() > 1:
        raise UserError(f"{FIELD}: works on one GPU, and compute.gpus is {group.size()}; leave one of them out")
    return VllmDecoder(job.vllm, engine_of(job.base.whole, processor, base_dtype(job.dtype, job.base), job.seed))


class Said(NamedTuple):
    """A completion of vLLM's, with its log-probability of each token (tokens,)."""

    tokens: list[int]
    logprobs: Tensor


class VllmDecoder:
    """vLLM in this process, with the weights of the model that was asked last."""

    def __init__(self, settings: Vllm, engine: Engine) -> None:
        self.settings, self.engine = settings, engine
        self.differences: list[float] = []
        """Nats between vLLM's and the model's log-probabilities, of each thing that was asked."""
        self._llm: Any = None
        self._holds: weakref.ref[Any] | None = None

    def notes(self) -> dict[str, float]:
        """For a stage's result."""
        return {"vllm_difference": max(self.differences)} if self.differences else {}

    def generate(self, model: Any, reader: Reader, prompts: list[Encoded], sampling: Sampling) -> list[list[list[int]]]:
        """As `generate.generate`, except that each completion has a seed of its own, whatever is asked beside it.

        Raises:
            UserError: vLLM does not start, or what it reads or writes is not the model's.
        """
        if sampling.settings:
            raise ValueError("vLLM has other names for transformers' settings of generation")
        with torch.inference_mode(False):
            self._load(model)
        require_room(FIELD, self._llm, [row["input_ids"].tolist() for row in prompts], sampling.limit)
        count, settings = sampling.count, self._settings(model, reader, sampling)
        seeds = np.random.SeedSequence(sampling.seed).generate_state(len(prompts) * count)
        rows = [(index // count, int(seed)) for index, seed in enumerate(seeds)]
        said: list[Said] = []
        for start in range(0, len(rows), ROWS):
            part = rows[start : start + ROWS]
            said += self._said([prompts[row] for row, _ in part], [_seeded(settings, seed) for _, seed in part])
        self._compare(model, reader, list(zip(prompts, said[::count], strict=True)), sampling.temperature or 1.0)
        every = iter(said)
        return [[one.tokens for one in islice(every, count)] for _ in prompts]

    def _load(self, model: Any) -> None:
        if self._llm is None:
            self._llm = self._started()
        if self._holds is not None and self._holds() is model:
            return
        weights = [(name, parameter.data) for name, parameter in model.named_parameters()]
        with explained(FIELD, "does not take the model's weights"):
            [missing] = self._llm.apply_model(lambda inside: _missing(inside, weights))
        if missing:
            raise UserError(
                f"{FIELD}: vLLM has weights that the model has not ({', '.join(sorted(missing)[:3])}); remove {FIELD}"
            )
        self._llm.reset_prefix_cache()
        forget_images(self._llm)
        self._holds = weakref.ref(model)

    def _started(self) -> Any:
        require_vllm(FIELD)
        # Its weights are filled from this process.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        # Weights are read from files first: where vLLM makes them up (`load_format: dummy`), it makes up buffers, too,
        # which nothing fills afterwards.
        own = {
            **self.engine.arguments(),
            "gpu_memory_utilization": self.settings.gpu_memory_utilization,
            "logprobs_mode": "processed_logprobs",
            "trust_remote_code": False,
        }
        with explained(FIELD, "does not start"):
            from vllm import LLM

            return LLM(**{"max_model_len": -1, **self.settings.arguments, **own})

    def _settings(self, model: Any, reader: Reader, sampling: Sampling) -> Any:
        from vllm import SamplingParams

        return SamplingParams(
            max_tokens=sampling.limit,
            temperature=sampling.temperature or 0.0,
            stop_token_ids=ends(model, reader),
            logit_bias=dict.fromkeys(placeholder_ids(model.config), BANNED) or None,
            logprobs=0,
            detokenize=False,
        )

    def _said(self, prompts: list[Encoded], settings: list[Any]) -> list[Said]:
        ids = [row["input_ids"].tolist() for row in prompts]
        token, asked = self.engine.image_token, ids
        # Samples of one prompt share its pictures.
        shown = {id(row): pictures(row.question) if row.question is not None else [] for row in prompts}
        images = [shown[id(row)] for row in prompts]
        if token is not None:
            asked = as_asked(FIELD, ids, images, token)
        given = [
            {"prompt_token_ids": row} | ({"multi_modal_data": {"image": shown}} if shown else {})
            for row, shown in zip(asked, images, strict=True)
        ]
        with explained(FIELD, "does not answer"):
            outputs = self._llm.generate(given, settings, use_tqdm=False)
        require_same_prompts(FIELD, ids, [one.prompt_token_ids for one in outputs])
        return [_read(one.outputs[0]) for one in outputs]

    def _compare(self, model: Any, reader: Reader, said: list[tuple[Encoded, Said]], temperature: float) -> None:
        """Of the first batch, vLLM's log-probabilities with the model's."""
        prompts, first = zip(*said[: reader.batch_size], strict=True)
        alone = Reader(reader.processor, reader.batch_size)
        scored = score(model, alone, list(prompts), [one.tokens for one in first], temperature)
        own = torch.cat([one.logprobs for one in scored])
        difference = float((torch.cat([one.logprobs for one in first]) - own).abs().mean())
        self.differences.append(difference)
        if not difference <= self.settings.difference:
            raise UserError(
                f"{FIELD}: log-probabilities of vLLM and of the model are {difference:.3g} nats apart, the mean over "
                f"the tokens of the first batch, and {FIELD}.difference allows {self.settings.difference:g}; remove "
                f"{FIELD}, or raise the bound if half precision is why"
            )


def _missing(inside: Any, weights: list[tuple[str, Tensor]]) -> set[str]:
    """Fill vLLM's model; the names of its parameters that nothing filled."""
    filled = inside.load_weights(weights)
    return {name for name, _ in inside.named_parameters()} - filled


def _seeded(settings: Any, seed: int) -> Any:
    own = settings.clone()
    own.seed = seed
    return own


def _read(output: Any) -> Said:
    tokens = list(output.token_ids)
    logprobs = [at[token].logprob for at, token in zip(output.logprobs, tokens, strict=True)]
    return Said(tokens, torch.tensor(logprobs))
