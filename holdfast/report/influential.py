"""The samples that did most to prior knowledge, for better and for worse, with their questions."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

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


class Ranking(NamedTuple):
    """The strongest samples of an influence run, each list from the strongest on.

    A sample has prompt, text, tokens; times (rollouts that said just this, or checkpoints that looked at a supervised
    sample), weight (mean over them), effect: Σ w⟨g, V⟩ over prior benchmarks and occurrences, each by the share of
    training that began at its checkpoint; pictures.
    """

    label: str
    arm: str
    reinforced: bool
    harmful: list[dict[str, Any]]
    helpful: list[dict[str, Any]]


def rankings(study: FinishedStudy) -> list[Ranking]:
    """Of every stage's first replicate."""
    traced = [run for run in study.runs if run.kind == "influence" and run.replicate in (0, 1)]
    found = [_ranking(run, study) for run in traced if run.arm in study.study.arms]
    samples = [sample for ranking in found for sample in (*ranking.harmful, *ranking.helpful)]
    names = {sample["prompt"] for sample in samples}
    boards = _boards(study.data.path / "target-train.parquet", names, study.study.target)
    for sample in samples:
        sample["pictures"] = boards.get(sample["prompt"], [])
    return found


def _ranking(run: RunRecord, study: FinishedStudy) -> Ranking:
    """Samples of no effect are in neither list, as those of the last checkpoint alone; none is in both."""
    arm = run.arm or ""
    stages = study.study.arms[arm]
    rows = _effects(Path(run.path), study.study.target.benchmark).groupby(["prompt", "text"], as_index=False)
    found = rows.agg(
        tokens=("tokens", "first"), times=("effect", "size"), weight=("weight", "mean"), effect=("effect", "sum")
    ).sort_values("effect", kind="stable")
    found["text"] = [excerpt(text, LONGEST) for text in found.text]
    return Ranking(
        label=arm if len(stages) == 1 else f"{arm}, stage {run.stage + 1}",
        arm=arm,
        reinforced=stages[run.stage].method == "grpo",
        harmful=found[found.effect < 0][:SHOWN].to_dict("records"),
        helpful=found[found.effect > 0][::-1][:SHOWN].to_dict("records"),
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
