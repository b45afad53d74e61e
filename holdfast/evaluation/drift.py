"""How far a model has moved from the base: KL(base ‖ now) per token, along the base's own samples on target prompts.

Both are read side by side, so the divergence at a position is the sum over the whole vocabulary of
p_base (log p_base − log p_now): only the prefixes are sampled, and the interval of the mean over prompts is that of
drawing others. The distributions are those that were sampled from: at the evaluation's temperature, placeholders
suppressed.

Where no second model fits (`evaluation.drift: sampled`), the base's samples x stand for the sum. With
r = p_now(x) / p_base(x), r − 1 − log r has the KL as its expectation and is never negative (Schulman 2020, "k3"). But
what the base hardly ever samples is hardly ever counted, however large r is there: of as many samples as are drawn
here, the mean was 7 to 15 % too low.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from holdfast.data.shards import Question
from holdfast.evaluation.generate import Reader, Sampling, completion_logits, generate, rows_of_logits, score
from holdfast.models.encode import Encoded, teacher_forced

SCHEMA = pa.schema(
    [("id", pa.string()), ("tokens", pa.list_(pa.int64())), ("logprobs", pa.list_(pa.float32()))],
)


POSITIONS = 64
"""Of the logits that are held at a time, positions that are summed at a time."""


class Pair(NamedTuple):
    """Two models on one device."""

    base: Any
    now: Any


class Said(NamedTuple):
    """Completions, one a prompt, along which two models are read."""

    prompts: list[Encoded]
    completions: list[list[int]]


class Reference(NamedTuple):
    """A sample of the base on a target question, with the base's log-probability of each of its tokens."""

    id: str
    tokens: list[int]
    logprobs: list[float]


def sample_base(
    model: Any, reader: Reader, questions: list[Question], prompts: list[Encoded], sampling: Sampling
) -> list[Reference]:
    """One sample for every question."""
    tokens = [ids for [ids] in generate(model, reader, prompts, sampling)]
    scored = score(model, reader, prompts, tokens, sampling.temperature or 1.0)
    return [
        Reference(question.id, ids, item.logprobs.tolist())
        for question, ids, item in zip(questions, tokens, scored, strict=True)
    ]


def write_references(path: Path, references: list[Reference]) -> None:
    """Write drift.parquet."""
    pq.write_table(pa.Table.from_pylist([reference._asdict() for reference in references], SCHEMA), path)


def read_references(path: Path) -> list[Reference]:
    """Read drift.parquet."""
    return [Reference(**row) for row in pq.read_table(path).to_pylist()]


@torch.inference_mode()
def drift(
    models: Pair, reader: Reader, prompts: list[Encoded], references: list[Reference], temperature: float
) -> list[float]:
    """Mean over a sample's tokens of KL(base ‖ now), in nats, for every prompt."""
    [found] = token_means(models, reader, Said(prompts, [one.tokens for one in references]), temperature, [divergence])
    return found


@torch.inference_mode()
def token_means(
    models: Pair,
    reader: Reader,
    said: Said,
    temperature: float,
    measures: Sequence[Callable[[Tensor, Tensor], Tensor]],
) -> list[list[float]]:
    """Of each measure, for every prompt, the mean over its completion's tokens; both models read along it once."""
    prompts, completions = said
    found: list[tuple[int, list[float]]] = []
    for batch in reader.own_batches(prompts, rows_of_logits(models.now, reader, completions)):
        rows = [completions[index] for index in batch]
        given = teacher_forced([prompts[index] for index in batch], rows, reader.pad, models.now.device)
        base, now = (completion_logits(model, given) / temperature for model in models)
        means = [_means(base, now, given.mask, measure) for measure in measures]
        found += zip(batch, map(list, zip(*means, strict=True)), strict=True)
    return [list(column) for column in zip(*reader.in_order(found), strict=True)]


def _means(base: Tensor, now: Tensor, mask: Tensor, measure: Callable[[Tensor, Tensor], Tensor]) -> list[float]:
    """Over the positions of `mask` (prompts, tokens), of logits (prompts, tokens, vocabulary)."""
    total = mask.new_zeros(len(mask), dtype=torch.float64)
    for part in zip(*(tensor.split(POSITIONS, 1) for tensor in (base, now, mask)), strict=True):
        total += torch.where(part[2], measure(part[0], part[1]), 0.0).sum(1)
    return (total / mask.sum(1)).tolist()


def divergence(base: Tensor, now: Tensor) -> Tensor:
    """KL(base ‖ now) of the distributions that logits (…, vocabulary) mean."""
    base, now = base.log_softmax(-1), now.log_softmax(-1)
    # What is suppressed has no probability in either: 0 · (−∞ − −∞) is nothing.
    return torch.where(base.isneginf(), 0.0, base.exp() * (base - now)).sum(-1, dtype=torch.float64)


def entropy(logits: Tensor, _other: Tensor) -> Tensor:
    """Of the distribution that the first model's logits (…, vocabulary) mean, in nats."""
    logs = logits.log_softmax(-1)
    return -torch.where(logs.isneginf(), 0.0, logs.exp() * logs).sum(-1, dtype=torch.float64)


def sampled_drift(
    model: Any, reader: Reader, prompts: list[Encoded], references: list[Reference], temperature: float
) -> list[float]:
    """The same as `drift`, estimated from the samples alone."""
    scored = score(model, reader, prompts, [reference.tokens for reference in references], temperature)
    return [
        float(estimate(torch.tensor(reference.logprobs), item.logprobs.float()))
        for reference, item in zip(references, scored, strict=True)
    ]


def estimate(base: Tensor, now: Tensor) -> Tensor:
    """k3 from one sample's log-probabilities (tokens,), meaned over its tokens."""
    ratio = now.double() - base.double()
    return (torch.expm1(ratio) - ratio).mean()


def write_drift(path: Path, references: list[Reference], divergences: list[float]) -> None:
    """One row a prompt, complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    columns = {"id": [reference.id for reference in references], "kl": divergences}
    pq.write_table(pa.table(columns), partial)
    partial.replace(path)
