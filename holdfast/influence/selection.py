"""Choose the training samples of a stage by what their gradients, at its first weights, would do to the prior.

Several processes share the batches of samples; each takes the prior's gradient by itself, of few questions.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from holdfast import group
from holdfast.config.jobs import Select
from holdfast.config.methods import SFT
from holdfast.influence import checkpoints
from holdfast.influence.checkpoint_influence import verify
from holdfast.influence.engine.engine import Engine
from holdfast.influence.engine.gradients import Gradient, mean_gradient
from holdfast.influence.replay.ledger import by_row
from holdfast.influence.samples import (
    Sample,
    SampleEncoder,
    benchmark_questions,
    learned_benchmark,
    sample_encoder,
    supervised_completions,
)
from holdfast.journal import Journal
from holdfast.models.encode import TeacherForced

AT_ONCE = 512
"""Samples held encoded at a time."""

VALUES = ("magnitude", "direction", "loss", "ledger")
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("row", pa.int64()),
        ("completion", pa.string()),
        ("ended", pa.bool_()),
        ("tokens", pa.int64()),
        ("magnitude", pa.float64()),
        ("direction", pa.float64()),
        ("loss", pa.float64()),
        ("ledger", pa.float64()),
    ]
)


def select(job: Select, out: Path, journal: Journal) -> dict[str, Any]:
    """Write samples.parquet with the samples that are kept, in their order; returns how many of how many.

    `row` is its place among all samples, `magnitude` is ‖g‖ per token, `direction` the cosine of g with the prior's
    mean gradient, `loss` that per token, and `ledger` what the sample did to the prior in the training that the job has
    the ledger of; 0 without one.
    """
    stage = job.train.stage
    assert isinstance(stage, SFT)
    assert stage.select is not None
    completions = supervised_completions(job.train, None)
    loaded = checkpoints.load(job.train, None, job.influence)
    model = checkpoints.computing(loaded, job.train, job.influence).model
    encoder = sample_encoder(job.train, job.influence)
    prior = _prior(model, job, encoder)
    engine = Engine(model, [prior])
    verify(model, encoder.samples(completions[: encoder.batch_size]), encoder)
    rows: list[dict[str, Any]] = []
    for start in range(0, len(completions), AT_ONCE):
        samples = encoder.samples(completions[start : start + AT_ONCE])
        rows += _scored(engine, samples, encoder, model.device, checkpoints.inner(prior, prior) ** 0.5)
        journal.progress(len(rows), len(completions))
    blamed = by_row(job.ledger.path, _prior_names(job)) if job.ledger is not None else {}
    rows = [row | {"row": index, "ledger": blamed.get(index, 0.0)} for index, row in enumerate(rows)]
    values = np.array([[row[name] for name in VALUES] for row in rows])
    kept = chosen(values, stage.select.by, max(1, round(stage.select.share * len(rows))), job.seed)
    chosen_rows = [rows[index] | {"ended": completions[index].ended} for index in kept]
    pq.write_table(pa.Table.from_pylist(chosen_rows, SCHEMA), out / "samples.parquet")
    return {"measured": len(rows), "kept": len(kept)}


def chosen(values: np.ndarray, by: str, count: int, seed: int) -> list[int]:
    """Indices of `count` samples, ascending, by `VALUES` (samples, values); none that is not finite."""
    [finite] = np.isfinite(values).all(axis=1).nonzero()
    if by == "random":
        wanted = finite[np.random.default_rng(seed).permutation(len(finite))]
    else:
        key = values[:, VALUES.index(by)] * (1 if by in ("magnitude", "loss") else -1)
        wanted = finite[np.argsort(key[finite], kind="stable")]
    return sorted(wanted[:count].tolist())


def _prior(model: Any, job: Select, encoder: SampleEncoder) -> Gradient:
    """The mean over benchmarks of their mean log-likelihood's gradient."""
    completions = benchmark_questions(job.data.path, job.influence.questions)
    gradients = [
        mean_gradient(model, encoder.batches(encoder.samples(completions[name]), model.device), per_token=True)
        for name in _prior_names(job)
    ]
    return {name: torch.stack([gradient[name] for gradient in gradients]).mean(0) for name in gradients[0]}


def _prior_names(job: Select) -> list[str]:
    target = learned_benchmark(job.train)
    return [name for name in benchmark_questions(job.data.path, 2) if name != target]


def _scored(
    engine: Engine, samples: Sequence[Sample], encoder: SampleEncoder, device: torch.device, length: float
) -> list[dict[str, Any]]:
    own = list(enumerate(encoder.parts(samples)))[group.number() :: group.size()]
    measured = [(place, *_measured(engine, next(encoder.batches(part, device)))) for place, part in own]
    _, norms, dots, losses = zip(*sorted(group.of_all(measured)), strict=True)
    rows = []
    for sample, norm, dot, loss in zip(
        samples, *map(itertools.chain.from_iterable, (norms, dots, losses)), strict=True
    ):
        tokens = len(sample.completion)
        direction = dot / (norm * length) if norm * length else 0.0
        row = {"id": sample.prompt, "completion": sample.text, "tokens": tokens}
        rows.append({**row, "magnitude": norm / tokens, "direction": direction, "loss": loss / tokens})
    return rows


def _measured(engine: Engine, batch: TeacherForced) -> tuple[list[float], list[float], list[float]]:
    """Of a batch's samples ‖g‖, ⟨g, prior⟩ and loss."""
    found = engine.measure(batch)
    return found.norm2.sqrt().tolist(), found.dot[:, 0].tolist(), (-found.loglik).tolist()
