"""Single questions and samples: each model's answers, knowledge that was lost, and what did most to prior knowledge.

Examples are drawn by the job's seed, never picked. Of an arm's replicates the first one speaks.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from holdfast.analysis.ledger import prior_effects
from holdfast.config.results import FinishedStudy, RunRecord
from holdfast.data.chat import pictures
from holdfast.data.shards import Question, prior_shard, read_questions, target_shard, target_shards
from holdfast.report.pictures import Picture, answer_picture, picture, question_pictures, solution_picture

LONGEST = 4000
"""Characters of a text that are kept."""
SHOWN = 3
"""Questions of a target, and those that an arm lost."""
RANKED = 6
"""Samples on either side."""
BASE = "base"
TEXTS = ["id", "benchmark", "role", "split", "prompt", "completion", "parsed", "answer", "correct", "score", "tokens"]
Row = dict[str, Any]
Key = tuple[str, str]
"""Benchmark and id of a question."""
Answers = dict[Key, Row]
"""A model's test records."""


def last_answers(study: FinishedStudy) -> dict[str, Answers]:
    """What the base and each arm's first replicate answer to test questions at their last checkpoint."""
    records = [one for one in study.evaluated if one.kind == "records" and one.replicate in (0, 1)]
    found: dict[str, Answers] = {}
    for arm in (None, *study.study.arms):
        own = [one for one in records if one.arm == arm]
        end = max(((one.stage, one.step) for one in own), default=None)
        last = [one.file.path for one in own if (one.stage, one.step) == end]
        rows = [row for path in last for row in pq.read_table(path, columns=TEXTS).to_pylist()]
        if last:
            found[arm or BASE] = {(row["benchmark"], row["id"]): _cut(row) for row in rows if row["split"] == "test"}
    return found


def _cut(row: Row) -> Row:
    """With texts that a page can show."""
    return {name: value[:LONGEST] if isinstance(value, str) else value for name, value in row.items()}


def asked(study: FinishedStudy, answers: dict[str, Answers], seed: int) -> list[Row]:
    """Randomly drawn test questions of the target that all models answered.

    A row has question, prompts (as the models were asked; more than one where studies word it otherwise), shown and
    solved (its pictures), and attempts: what every model answered, as arm, row and picture.
    """
    known = [
        question
        for shard in target_shards(study.data.path, "test")
        for question in read_questions(shard)
        if all((question.benchmark, question.id) in own for own in answers.values())
    ]
    found = []
    for question in random.Random(seed).sample(known, min(SHOWN, len(known))):
        rows = {arm: own[question.benchmark, question.id] for arm, own in answers.items()}
        target = study.study.all_targets[question.benchmark]
        attempts = [
            {"arm": arm, "row": row, "picture": answer_picture(question, target, row["parsed"])}
            for arm, row in rows.items()
        ]
        prompts = list(dict.fromkeys(row["prompt"] for row in rows.values()))
        drawn = {"shown": question_pictures(question, target), "solved": solution_picture(question, target)}
        found.append({"question": question, "prompts": prompts, "attempts": attempts} | drawn)
    return found


def lost(study: FinishedStudy, answers: dict[str, Answers], seed: int) -> dict[str, list[Row]]:
    """By arm, a few randomly drawn questions that it lost, of different benchmarks where there are several.

    A row has before and after (the records of the base and of the arm) and pictures.
    """
    base = answers.get(BASE, {})
    drawn = {arm: _drawn(base, own, seed) for arm, own in answers.items() if arm != BASE}
    names = sorted({name for keys in drawn.values() for name, _ in keys})
    questions = {
        (name, question.id): [picture(image) for image in pictures(question)]
        for name in names
        for question in read_questions(study.data.path / prior_shard(name))
        if any((name, question.id) in keys for keys in drawn.values())
    }
    return {
        arm: [{"before": base[key], "after": answers[arm][key], "pictures": questions[key]} for key in keys]
        for arm, keys in drawn.items()
    }


def _drawn(base: Answers, own: Answers, seed: int) -> list[Key]:
    """One of each benchmark before a second of any."""
    known = [key for key, row in base.items() if row["role"] == "prior" and row["correct"] and key in own]
    gone = [key for key in known if not own[key]["correct"]]
    order = pd.DataFrame(random.Random(seed).sample(gone, len(gone)), columns=["benchmark", "id"])
    turns = order.groupby("benchmark").cumcount().sort_values(kind="stable")
    return [tuple(order.loc[place]) for place in turns.index[:SHOWN]]


def rankings(study: FinishedStudy, kind: str) -> list[Row]:
    """The strongest samples of every stage's first replicate: label, arm, reinforced, harmful and helpful samples.

    A sample has prompt, text, tokens, source ("" of a trace); times (rollouts that said just this, or steps or
    checkpoints that saw a supervised sample), weight (mean over them), effect; pictures (None where they are not to be
    had). Of kind `ledger`, the effect is what it did to the prior in all its steps, in nats per token. Of `influence`,
    where a stage has no ledger, it is Σ w⟨g, V⟩ over prior benchmarks and occurrences, each by the share of training
    that began at its checkpoint.
    """
    arms = study.study.arms
    own = [run for run in study.runs if run.replicate in (0, 1) and run.arm in arms]
    accounted = {(run.arm, run.stage) for run in own if run.kind == "ledger" and kind != "ledger"}
    runs = [run for run in own if run.kind == kind and (run.arm, run.stage) not in accounted]
    found = [_ranking(run, study) for run in runs]
    for run, ranking in zip(runs, found, strict=True):
        samples = [*ranking["harmful"], *ranking["helpful"]]
        shown = boards(study, run, {sample["prompt"] for sample in samples})
        for sample in samples:
            sample["pictures"] = shown.get(sample["prompt"])
    return found


def of_stage(run: RunRecord, study: FinishedStudy) -> Row:
    """The arm of a stage, and a label that tells its stages apart."""
    arm = str(run.arm)
    return {"arm": arm, "label": arm if len(study.study.arms[arm]) == 1 else f"{arm}, stage {run.stage + 1}"}


def _ranking(run: RunRecord, study: FinishedStudy) -> Row:
    """Samples of no effect are in neither list, as those of the last checkpoint alone; none is in both."""
    stage = study.study.trained[str(run.arm)][run.stage]
    strength = _accounted if run.kind == "ledger" else _strength
    rows = strength(Path(run.path), study.study.all_targets).groupby(["source", "prompt", "text"], as_index=False)
    found = rows.agg(
        tokens=("tokens", "first"), times=("effect", "size"), weight=("weight", "mean"), effect=("effect", "sum")
    ).sort_values("effect", kind="stable")
    return of_stage(run, study) | {
        "reinforced": stage.method != "sft",
        "harmful": found[found.effect < 0][:RANKED].to_dict("records"),
        "helpful": found[found.effect > 0][::-1][:RANKED].to_dict("records"),
    }


def _accounted(directory: Path, targets: Collection[str]) -> pd.DataFrame:
    """The rows of a ledger; effect is that on the prior."""
    rows = pq.read_table(directory / "ledger.parquet").to_pandas().rename(columns={"advantage": "weight"})
    return rows.assign(effect=prior_effects(rows, lambda name: "target" if name in targets else "prior"))


def _strength(directory: Path, targets: Collection[str]) -> pd.DataFrame:
    """`effects` on the prior's benchmarks; effect is weighted, and by the share of training that began there."""
    found = effects(directory, lambda name: name not in targets).assign(source="")
    steps = np.unique(found.step)
    ahead = np.diff(steps, append=steps[-1]).astype(float)
    shares = ahead / ahead.sum() if ahead.sum() else np.ones(len(steps))
    return found.assign(effect=shares[np.searchsorted(steps, found.step)] * found.weight * found.dots)


@functools.lru_cache(maxsize=8)
def _traced(directory: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """influence.parquet, and what each sample says."""
    texts = pq.read_table(directory / "sources.parquet", columns=["step", "sample", "text"]).to_pandas()
    return pq.read_table(directory / "influence.parquet").to_pandas(), texts


def effects(directory: Path, wanted: Callable[[str], bool]) -> pd.DataFrame:
    """One row a sample and checkpoint, blocks of layers added up: step, sample, prompt, tokens, weight, dots, text.

    `dots` is the sum of ⟨g, V⟩ over the benchmarks that are wanted.
    """
    rows, texts = _traced(directory)
    halves = [name for name in rows.columns if name.startswith("dot/") and name.endswith(("/a", "/b"))]
    known = [name for name in halves if wanted(name.removeprefix("dot/").rpartition("/")[0])]
    keys = ["step", "sample", "prompt", "tokens", "weight"]
    # A benchmark's dot is the mean of those with its two halves.
    dots = rows[keys].assign(dots=rows[known].sum(axis=1) / 2)
    summed = dots.groupby(keys, sort=False, as_index=False)["dots"].sum()
    return summed.merge(texts, on=["step", "sample"], how="left").fillna({"text": ""})


def boards(study: FinishedStudy, run: RunRecord, names: set[str]) -> dict[str, list[Picture]]:
    """The pictures of training questions of a stage, by id; a prompt that the shard does not hold has none."""
    learned = study.study.learned_by(study.study.trained[str(run.arm)][run.stage])
    path = study.data.path / target_shard("train", learned if study.study.targets else "")
    if not names or not path.exists():
        return {}
    target = study.study.all_targets[learned]
    rows = pq.read_table(path, filters=[("id", "in", sorted(names))]).to_pylist()
    questions = [Question(**{**row, "images": tuple(row["images"])}) for row in rows]
    return {question.id: question_pictures(question, target) for question in questions}
