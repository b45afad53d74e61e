"""The samples that did most to prior knowledge, for better and for worse, with their questions."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from holdfast.config.jobs import FinishedStudy, RunRecord
from holdfast.config.targets import Target
from holdfast.data.shards import Question
from holdfast.report.examples import excerpt
from holdfast.report.pictures import Picture, question_pictures

SHOWN = 6
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
    """The strongest samples of an influence run, each list from the strongest on."""

    label: str
    arm: str
    reinforced: bool
    harmful: list[Influential]
    helpful: list[Influential]


def rankings(study: FinishedStudy) -> list[Ranking]:
    """Of every stage's first replicate."""
    found = []
    for run in study.runs:
        if run.kind == "influence" and run.replicate in (0, 1) and run.arm in study.study.arms:
            found.append(_ranking(run, study))
    asked = {item.prompt for ranking in found for side in (ranking.harmful, ranking.helpful) for item in side}
    boards = _boards(study.data.path / "target-train.parquet", asked, study.study.target)
    return [
        ranking._replace(harmful=_pictured(ranking.harmful, boards), helpful=_pictured(ranking.helpful, boards))
        for ranking in found
    ]


def _ranking(run: RunRecord, study: FinishedStudy) -> Ranking:
    """Samples of no effect are in neither list, as those of the last checkpoint alone; none is in both."""
    arm = run.arm or ""
    stages = study.study.arms[arm]
    rows = _effects(Path(run.path), study.study.target.benchmark)
    found = [
        Influential(
            prompt=prompt,
            text=excerpt(text, LONGEST),
            tokens=int(own.tokens.iloc[0]),
            times=len(own),
            weight=float(own.weight.mean()),
            effect=float(own.effect.sum()),
            pictures=[],
        )
        for (prompt, text), own in rows.groupby(["prompt", "text"], sort=True)
    ]
    found.sort(key=lambda item: item.effect)
    return Ranking(
        label=arm if len(stages) == 1 else f"{arm}, stage {run.stage + 1}",
        arm=arm,
        reinforced=stages[run.stage].method == "grpo",
        harmful=[item for item in found if item.effect < 0][:SHOWN],
        helpful=[item for item in found[::-1] if item.effect > 0][:SHOWN],
    )


def _effects(directory: Path, target: str) -> pd.DataFrame:
    """One row for each sample and checkpoint, blocks of layers added up: prompt, text, tokens, weight, effect."""
    rows = pq.read_table(directory / "influence.parquet").to_pandas()
    halves = [name for name in rows.columns if name.startswith("dot/") and name.endswith(("/a", "/b"))]
    prior = [name for name in halves if name.removeprefix("dot/").rpartition("/")[0] != target]
    # A benchmark's dot is the mean of those with its two halves.
    rows["dots"] = rows[prior].sum(axis=1) / 2
    keys = ["step", "sample", "prompt", "tokens", "weight"]
    summed = rows.groupby(keys, sort=False, as_index=False)["dots"].sum()
    steps = np.unique(summed.step)
    ahead = np.diff(steps, append=steps[-1]).astype(float)
    shares = ahead / ahead.sum() if ahead.sum() else np.ones(len(steps))
    summed["effect"] = shares[np.searchsorted(steps, summed.step)] * summed.weight * summed.dots
    texts = pq.read_table(directory / "sources.parquet", columns=["step", "sample", "text"]).to_pandas()
    return summed.merge(texts, on=["step", "sample"], how="left").fillna({"text": ""})


def _boards(path: Path, names: set[str], target: Target) -> dict[str, list[Picture]]:
    """By question id; a prompt that the shard does not hold is shown without its pictures."""
    if not names or not path.exists():
        return {}
    rows = pq.read_table(path, filters=[("id", "in", sorted(names))]).to_pylist()
    questions = [Question(**{**row, "images": tuple(row["images"])}) for row in rows]
    return {question.id: question_pictures(question, target) for question in questions}


def _pictured(items: list[Influential], boards: dict[str, list[Picture]]) -> list[Influential]:
    return [item._replace(pictures=boards.get(item.prompt, [])) for item in items]
