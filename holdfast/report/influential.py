"""The samples that did most to prior knowledge, for better and for worse, with their questions."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq

from holdfast.analysis.bootstrap import shares_after
from holdfast.analysis.influence_runs import Trace
from holdfast.config.targets import Target
from holdfast.data.shards import Question
from holdfast.report.examples import excerpt
from holdfast.report.pictures import Picture, question_pictures

MOST = 10
LONGEST = 500
"""Characters of a completion that are shown."""


class Influential(NamedTuple):
    """A completion of a prompt, all of its occurrences together."""

    prompt: str
    text: str
    tokens: int
    times: int
    """Rollouts of just these tokens, or checkpoints at which a supervised sample was measured."""
    weight: float
    """Mean over occurrences."""
    effect: float
    """Σ w⟨g, V⟩ over prior benchmarks and occurrences, each by the share of training that began at its checkpoint."""
    pictures: list[Picture]


class Ranking(NamedTuple):
    harmful: list[Influential]
    helpful: list[Influential]


def influential_samples(traces: Iterable[Trace], data: Path, target: Target) -> dict[str, Ranking]:
    """The strongest of every trace, by its label."""
    ranked = {trace.label: _ranked(trace) for trace in traces}
    prompts = {item.prompt for ranking in ranked.values() for side in ranking for item in side}
    questions = _questions(data / "target-train.parquet", prompts)
    images = {name: question_pictures(question, target) for name, question in questions.items()}
    return {
        label: Ranking(*([item._replace(pictures=images.get(item.prompt, [])) for item in side] for side in ranking))
        for label, ranking in ranked.items()
    }


def _ranked(trace: Trace) -> Ranking:
    """Samples of no effect are in neither list, as those of the last checkpoint alone; none is in both."""
    rows = trace.rows
    parts = shares_after(trace.steps)[np.searchsorted(trace.steps, rows.steps)]
    effects = parts * rows.weighted_dots[:, 1:].sum(axis=1)
    found: dict[tuple[str, str], list[int]] = {}
    for index, (step, sample, prompt) in enumerate(zip(rows.steps.tolist(), rows.samples, rows.prompts, strict=True)):
        found.setdefault((prompt, trace.texts.get((step, sample), "")), []).append(index)
    summed = sorted((float(effects[indices].sum()), key, indices) for key, indices in found.items())
    harmful = [entry for entry in summed if entry[0] < 0][:MOST]
    helpful = [entry for entry in summed[::-1] if entry[0] > 0][:MOST]
    return Ranking(*([_influential(trace, *entry) for entry in side] for side in (harmful, helpful)))


def _influential(trace: Trace, effect: float, key: tuple[str, str], indices: list[int]) -> Influential:
    return Influential(
        prompt=key[0],
        text=excerpt(key[1], LONGEST),
        tokens=int(trace.rows.tokens[indices[0]]),
        times=len(indices),
        weight=float(np.mean(trace.rows.weights[indices])),
        effect=effect,
        pictures=[],
    )


def _questions(path: Path, names: set[str]) -> dict[str, Question]:
    """By id; a prompt that the shard does not hold is shown without its pictures."""
    if not names or not path.exists():
        return {}
    rows = pq.read_table(path, filters=[("id", "in", sorted(names))]).to_pylist()
    return {row["id"]: Question(**{**row, "images": tuple(row["images"])}) for row in rows}
