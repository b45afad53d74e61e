"""What a model says, and how probable it finds what was said.

Probabilities are over the tokens that a completion may hold: image placeholders are suppressed everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor
from transformers import GenerationConfig

from holdfast import group
from holdfast.data.shards import Question
from holdfast.models.encode import Encoded, TeacherForced, completion_ids, encode, join, teacher_forced
from holdfast.models.end_of_turn import stop_ids
from holdfast.models.load import placeholder_ids, without_placeholders
from holdfast.models.prompt_sharing import can_share, shared_prompts
from holdfast.models.sampling_together import drawn_as_one

Found = TypeVar("Found")
VALUES = 2**27
"""Logits of one model that are held at a time: half a gibibyte in float32."""


class Scored(NamedTuple):
    """A given completion under the model: `logprobs` (tokens,), and whether greedy decoding would write just it."""

    logprobs: Tensor
    greedy: bool


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn: `count` for every prompt at `temperature`, from `seed`; greedily when that is None."""

    limit: int
    """Longest completion in tokens."""
    temperature: float | None = None
    count: int = 1
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    """More of transformers' GenerationConfig, under its names; they win over what stands here."""


class Decoder(Protocol):
    """Writes completions in place of transformers."""

    def generate(
        self, model: Any, reader: Reader, prompts: list[Encoded], sampling: Sampling
    ) -> list[list[list[int]]]: ...


class Reader:
    """A processor with what batching needs.

    Where processes read `together`, all are given the same, each reads its share, and all know what all have found.
    Completions are written by transformers, or by a `decoder`.
    """

    def __init__(self, processor: Any, batch_size: int, together: bool = False, decoder: Decoder | None = None) -> None:
        self.processor = processor
        self.decoder = decoder
        self.tokenizer = processor.tokenizer
        self.batch_size = batch_size
        self.together = together
        self.number, self.size = (group.number(), group.size()) if together else (0, 1)
        self.pad = self.tokenizer.pad_token_id

    def by(self, batch_size: int) -> Reader:
        """The same with another batch size."""
        return Reader(self.processor, batch_size, self.together, self.decoder)

    def encode(self, questions: list[Question]) -> list[Encoded]:
        """The prompts as tensors."""
        return encode(self.processor, questions)

    def completion_ids(self, text: str) -> list[int]:
        """A completion's tokens, its end included."""
        return completion_ids(self.tokenizer, text)

    def text(self, ids: list[int]) -> str:
        """A completion as a grader reads it."""
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def batches(self, encoded: list[Encoded], each: int = 1) -> Iterator[list[int]]:
        """Indices of prompts of like length, so that little is padded; `each` prompt stands for so many rows."""
        order = sorted(range(len(encoded)), key=lambda index: len(encoded[index]["input_ids"]))
        size = max(1, self.batch_size // each)
        for start in range(0, len(order), size):
            yield order[start : start + size]

    def own_batches(self, encoded: list[Encoded], each: int = 1) -> Iterator[list[int]]:
        """Of these batches, which are those of one process, every so many-th."""
        return islice(self.batches(encoded, each), self.number, None, self.size)

    def own_part(self, batch: list[int]) -> tuple[int, list[int]]:
        """A part of a batch, and where it begins; with fewer prompts than processes, the first one again."""
        first, end = (len(batch) * number // self.size for number in (self.number, self.number + 1))
        return (first, batch[first:end]) if first < end else (0, batch[:1])

    def in_order(self, found: Sequence[tuple[int, Found]]) -> list[Found]:
        """What was found for every prompt, by its index, by all processes."""
        everybody = dict(group.of_all(found) if self.size > 1 else found)
        return [everybody[index] for index in sorted(everybody)]


@torch.inference_mode()
def score(
    model: Any, reader: Reader, prompts: list[Encoded], completions: list[list[int]], temperature: float = 1.0
) -> list[Scored]:
    """Teacher-forced log-probabilities of given completions at a temperature."""
    scored: list[tuple[int, Scored]] = []
    for batch in reader.own_batches(prompts, rows_of_logits(model, reader, completions)):
        given = teacher_forced(
            [prompts[index] for index in batch], [completions[index] for index in batch], reader.pad, model.device
        )
        targets, mask = given.targets, given.mask
        logits = completion_logits(model, given) / temperature
        logprobs = logits.gather(-1, targets[..., None]).squeeze(-1) - logits.logsumexp(-1)
        agrees = ((logits.argmax(-1) == targets) | ~mask).all(1).tolist()
        for row, index in enumerate(batch):
            scored.append((index, Scored(logprobs[row, mask[row]].cpu(), agrees[row])))
    return reader.in_order(scored)


def rows_of_logits(model: Any, reader: Reader, completions: list[list[int]]) -> int:
    """For how many rows a prompt stands, so that the logits of a batch are at most VALUES numbers, or of one prompt."""
    values = max(map(len, completions), default=0) * model.config.get_text_config().vocab_size
    return max(1, values * reader.batch_size // VALUES)


def completion_logits(model: Any, given: TeacherForced) -> Tensor:
    """Logits (prompts, tokens, vocabulary) at the completions' positions, in float32, placeholders suppressed."""
    logits = model(**given.inputs, use_cache=False, logits_to_keep=given.targets.shape[1] + 1).logits[:, :-1].float()
    logits[..., placeholder_ids(model.config)] = -torch.inf
    return logits


@torch.inference_mode()
def generate(model: Any, reader: Reader, prompts: list[Encoded], sampling: Sampling) -> list[list[list[int]]]:
    """For every prompt its completions' tokens, their end included where the limit left room for it.

    The same seed gives the same samples; torch's own random state is left as it was. Several processes share whole
    batches, or, since what a batch draws depends on those before it, the prompts of each sampled one.
    """
    if reader.decoder is not None:
        return reader.decoder.generate(model, reader, prompts, sampling)
    written: list[tuple[int, list[list[int]]]] = []
    count, sampled = sampling.count, sampling.temperature is not None
    settings = _settings(model, reader, sampling)
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(sampling.seed)
        for batch in reader.batches(prompts, count) if sampled else reader.own_batches(prompts, count):
            first, own = reader.own_part(batch) if sampled else (0, batch)
            # Not by num_return_sequences, which would repeat the first of several images before the second.
            repeated = [prompts[index] for index in own for _ in range(count)]
            inputs = join(repeated, reader.pad, model.device)
            with (
                shared_prompts(model) if count > 1 and can_share(model) else nullcontext(),
                drawn_as_one(len(batch) * count, first * count) if sampled and reader.size > 1 else nullcontext(),
            ):
                rows = model.generate(**inputs, generation_config=settings)
            rows = rows[:, inputs["input_ids"].shape[1] :].tolist()
            said = [_until_end(ids, settings.eos_token_id) for ids in rows]
            written += [(index, said[place * count :][:count]) for place, index in enumerate(own)]
    return reader.in_order(written)


def ends(model: Any, reader: Reader) -> list[int]:
    """The tokens at which a completion ends."""
    return sorted({reader.tokenizer.eos_token_id, *stop_ids(model.generation_config)})


def _settings(model: Any, reader: Reader, sampling: Sampling) -> GenerationConfig:
    """Everything that changes what is written is named, since `generate` fills gaps from the checkpoint's defaults."""
    named = {
        "max_new_tokens": sampling.limit,
        "do_sample": sampling.temperature is not None,
        "temperature": sampling.temperature or 1.0,
        "top_k": 0,
        "top_p": 1.0,
        "repetition_penalty": 1.0,
        "eos_token_id": ends(model, reader),
        "pad_token_id": reader.pad,
        "use_cache": True,
        "disable_compile": True,
    }
    return GenerationConfig(**{**named, **without_placeholders(model.config, sampling.settings)})


def _until_end(ids: list[int], ends: list[int]) -> list[int]:
    for position, token in enumerate(ids):
        if token in ends:
            return ids[: position + 1]
    return ids


def answer(
    model: Any, reader: Reader, prompts: list[Encoded], references: list[list[int]], limit: int
) -> tuple[list[list[int]], list[Scored]]:
    """Greedy completions, and the references' scores.

    Where greedy decoding would write just the reference, one forward pass over it has shown so, and nothing is decoded.
    """
    scored = score(model, reader, prompts, references)
    completions = [reference[:limit] for reference in references]
    open_ones = [index for index, item in enumerate(scored) if not item.greedy]
    written = generate(model, reader, [prompts[index] for index in open_ones], Sampling(limit)) if open_ones else []
    for index, [ids] in zip(open_ones, written, strict=True):
        completions[index] = ids
    return completions, scored
