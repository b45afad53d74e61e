"""How far a model has moved from the base on target prompts: KL(base ‖ now) on the base's own samples.

With samples x from the base and r = p_now(x) / p_base(x), the mean of r − 1 − log r is an unbiased estimate of
KL(base ‖ now): E_base[r] = 1 takes r − 1 away, and E_base[−log r] is the KL. Each term is at least 0, so the estimate
is too, and its variance is far below that of −log r (Schulman 2020, "k3"). It is taken token by token, given the
base's prefix, of the distributions that were sampled from: at the evaluation's temperature, placeholders suppressed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from holdfast.data.shards import Question
from holdfast.evaluation.generate import Reader, Sampling, generate, score
from holdfast.models.encode import Encoded

SCHEMA = pa.schema(
    [("id", pa.string()), ("tokens", pa.list_(pa.int64())), ("logprobs", pa.list_(pa.float32()))],
)


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


def drift(model: Any, reader: Reader, prompts: list[Encoded], references: list[Reference], temperature: float) -> float:
    """Mean over prompts of the mean over tokens of the KL estimate, in nats."""
    scored = score(model, reader, prompts, [reference.tokens for reference in references], temperature)
    estimates = [
        divergence(torch.tensor(reference.logprobs), item.logprobs.float())
        for reference, item in zip(references, scored, strict=True)
    ]
    return float(torch.stack(estimates).double().mean())


def divergence(base: Tensor, now: Tensor) -> Tensor:
    """The estimate from one sample's log-probabilities (tokens,), meaned over its tokens."""
    ratio = now.double() - base.double()
    return (torch.expm1(ratio) - ratio).mean()
