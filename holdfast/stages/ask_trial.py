"""An evaluation tried on the base: its longest questions, beside a second model where the drift reads one."""

from __future__ import annotations

import time
from itertools import chain, pairwise
from typing import Any, NamedTuple

import torch

from holdfast.config.jobs import AskTrial, Evaluate
from holdfast.data.chat import rest
from holdfast.data.shards import Question, read_questions
from holdfast.evaluation.drift import Pair, Said, divergence, token_means
from holdfast.evaluation.generate import Reader, Sampling, generate, score
from holdfast.evaluation.vllm_decoder import ROWS, decoder_of
from holdfast.models.encode import Encoded
from holdfast.models.image_feature_cache import ImageFeatures, cached_image_features
from holdfast.models.load import device, load_model, load_processor
from holdfast.models.precision import base_dtype
from holdfast.stages.out_of_memory import ASKED, explained
from holdfast.stages.trial import longest_of, peak

FIRST = 2
"""Tokens that are written before anything is timed: by reading the prompt, and by going on."""


def ask_trial(job: AskTrial) -> dict[str, Any]:
    """Notes: `questions` of a batch, `seconds_reading` their right answers, and `seconds_writing` completions of the
    limit's length; `prompts`, and `seconds_comparing` with the base along these; `asked` and `validated`, how many
    questions a checkpoint has and how many a kept step; `peak` (bytes).

    With vLLM, questions are as many as it is given at a time, and completions have the base's own length; `along` has
    the first three of a batch by transformers, as trainings ask along the way.

    Raises:
        UserError: the batch does not fit into memory.
    """
    asked = job.evaluation
    tests, validated = _questions(asked)
    with explained(ASKED):
        tried = _tried(asked, [*tests, *validated])
    return {**tried, "asked": len(tests) + len(validated), "validated": len(validated), "peak": peak()}


def _questions(asked: Evaluate) -> tuple[list[Question], list[Question]]:
    """Of tests, and of validation as many as are asked."""
    tests = [read_questions(one.test.path) for one in asked.benchmarks]
    validation = [read_questions(one.validation.path, asked.validation) for one in asked.benchmarks]
    return list(chain.from_iterable(tests)), list(chain.from_iterable(validation))


class _Batch(NamedTuple):
    prompts: list[Encoded]
    references: list[list[int]]


def _tried(asked: Evaluate, questions: list[Question]) -> dict[str, Any]:
    processor = load_processor(asked.base)
    decoder = decoder_of(asked, processor)
    own, reader = (Reader(processor, asked.batch_size, decoder=one) for one in (None, decoder))
    # vLLM writes more than a batch at a time, and of all of them compares one batch with the model.
    longest = longest_of(processor, questions, max(ROWS, asked.batch_size) if decoder else asked.batch_size)
    batch = _Batch(reader.encode(longest), [own.completion_ids(rest(one, one.reference)) for one in longest])
    dtype, where = base_dtype(asked.dtype, asked.base), device(asked.device)
    model = load_model(asked.base, dtype, where).requires_grad_(False)
    images: ImageFeatures = {}
    along: dict[str, Any] = {}
    if decoder is not None:
        # Before vLLM has its share of the card, and the base its own: trainings ask without them.
        few = _Batch(batch.prompts[: asked.batch_size], batch.references[: asked.batch_size])
        along["along"], _ = _answered(model, own, few, asked.limit, {})
    exact = asked.drift is not None and asked.drift.kind == "exact"
    beside = load_model(asked.base, dtype, where).requires_grad_(False) if exact else model
    found, written = _answered(model, reader, batch, asked.limit, images)
    compared = asked.drift.prompts if asked.drift is not None else 0
    said = Said(batch.prompts[:compared], written[:compared])
    start = _now()
    with cached_image_features(model, images):
        if exact:
            token_means(Pair(beside, model), reader, said, 1.0, [divergence])
        else:
            score(model, reader, *said)
    return {**found, **along, "prompts": len(said.prompts), "seconds_comparing": _now() - start}


def _answered(
    model: Any, reader: Reader, batch: _Batch, limit: int, images: ImageFeatures
) -> tuple[dict[str, Any], list[list[int]]]:
    """How many seconds the model reads right answers, and writes its own; and what it writes."""
    # Kept from its ends, vLLM would have other probabilities than the model's, and be refused for it.
    least = {"min_new_tokens": limit} if reader.decoder is None else {}
    # What is done once, such as vLLM's start, is no question's time.
    generate(model, reader, batch.prompts[-1:], Sampling(min(FIRST, limit)))
    times = [_now()]
    with cached_image_features(model, images):
        score(model, reader, *batch)
        times.append(_now())
        written = [ids for [ids] in generate(model, reader, batch.prompts, Sampling(limit, settings=least))]
        times.append(_now())
    reading, writing = (end - start for start, end in pairwise(times))
    return {"questions": len(written), "seconds_reading": reading, "seconds_writing": writing}, written


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.monotonic()
