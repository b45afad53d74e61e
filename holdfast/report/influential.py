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
from holdfast.report.pictures import Picture, shown

SHOWN = 10
LONGEST = 500
"""Characters of a completion that are shown."""


class Influential(NamedTuple):
    """A completion of a prompt, all of its occurrences together."""

    prompt: str
    text: str
    tokens: int
    times: int
    """Rollouts that said just this, or checkpoints that looked at a supervised sample."""
    weight: float
    """Mean over occurrences."""
    effect: float
    """Σ w⟨g, V⟩ over prior benchmarks and occurrences, each by the share of training that began at its checkpoint."""
    pictures: list[Picture]


class Ranking(NamedTuple):
    harmful: list[Influential]
    helpful: list[Influential]


def rankings(traces: Iterable[Trace], data: Path, target: Target) -> dict[str, Ranking]:
    """The strongest of every trace, by its label."""
    ranked = {trace.label: _ranked(trace) for trace in traces}
    asked = {item.prompt for ranking in ranked.values() for side in ranking for item in side}
    questions = _questions(data / "target-train.parquet", asked)
    boards = {name: shown(question, target) for name, question in questions.items()}
    return {
        label: Ranking(*([item._replace(pictures=boards.get(item.prompt, [])) for item in side] for side in ranking))
        for label, ranking in ranked.items()
    }


def _ranked(trace: Trace) -> Ranking:
    """Samples of no effect are in neither list, as those of the last checkpoint alone; none is in both."""
    rows = trace.rows
    parts = shares_after(trace.steps)[np.searchsorted(trace.steps, rows.steps)]
    effects = parts * rows.weighted_dots[:, 1:].sum(axis=1)
    found: dict[tuple[str, str], list[int]] = {}
    for place, (step, sample, prompt) in enumerate(zip(rows.steps.tolist(), rows.samples, rows.prompts, strict=True)):
        found.setdefault((prompt, trace.texts.get((step, sample), "")), []).append(place)
    summed = sorted((float(effects[places].sum()), key, places) for key, places in found.items())
    harmful = [entry for entry in summed if entry[0] < 0][:SHOWN]
    helpful = [entry for entry in summed[::-1] if entry[0] > 0][:SHOWN]
    return Ranking(*([_influential(trace, *entry) for entry in side] for side in (harmful, helpful)))


def _influential(trace: Trace, effect: float, key: tuple[str, str], places: list[int]) -> Influential:
    return Influential(
        prompt=key[0],
        text=excerpt(key[1], LONGEST),
        tokens=int(trace.rows.tokens[places[0]]),
        times=len(places),
        weight=float(np.mean(trace.rows.weights[places])),
        effect=effect,
        pictures=[],
    )


def _questions(path: Path, names: set[str]) -> dict[str, Question]:
    """By id; a prompt that the shard does not hold is shown without its pictures."""
    if not names or not path.exists():
        return {}
    rows = pq.read_table(path, filters=[("id", "in", sorted(names))]).to_pylist()
    return {row["id"]: Question(**{**row, "images": tuple(row["images"])}) for row in rows}
