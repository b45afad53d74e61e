"""What the report shows of single questions: target questions with each model's answer, and knowledge that was lost.

Examples are drawn by the job's seed, never picked. Of an arm's replicates the first one speaks.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from holdfast.config.jobs import Evaluated, FinishedStudy
from holdfast.config.targets import Target
from holdfast.data.chat import pictures
from holdfast.data.shards import Question, prior_shard, read_questions
from holdfast.report.pictures import Picture, answer_picture, picture, question_pictures, solution_picture

LONGEST = 4000
"""Characters of a text that are kept."""
SHOWN = 3
"""Questions of a target, and those that an arm lost."""
BASE = "base"
TEXTS = ("id", "benchmark", "role", "split", "prompt", "completion", "parsed", "answer", "correct", "score", "tokens")
Row = dict[str, Any]
Key = tuple[str, str]
"""Benchmark and id of a question."""
Answers = dict[Key, Row]
"""A model's test records."""


class Asked(NamedTuple):
    """A target question with what every model answered: arm, row, text and picture."""

    question: Question
    prompts: list[str]
    """As the models were asked; more than one where studies word it otherwise."""
    shown: list[Picture]
    solved: Picture | None
    attempts: list[Row]


class Lost(NamedTuple):
    """A question that the base answered right and the arm no longer does."""

    before: Row
    after: Row
    text: str
    pictures: list[Picture]


def last_answers(study: FinishedStudy) -> dict[str, Answers]:
    """What the base and each arm's first replicate answer to test questions at their last checkpoint."""
    records = [one for one in study.evaluated if one.kind == "records" and one.replicate in (0, 1)]
    found = {}
    for arm in (None, *study.study.arms):
        own = [one for one in records if one.arm == arm]
        end = max(((one.stage, one.step) for one in own), default=None)
        if end is not None:
            found[arm or BASE] = _read(one for one in own if (one.stage, one.step) == end)
    return found


def _read(files: Iterable[Evaluated]) -> Answers:
    rows = [row for one in files for row in pq.read_table(one.file.path, columns=list(TEXTS)).to_pylist()]
    return {(row["benchmark"], row["id"]): _cut(row) for row in rows if row["split"] == "test"}


def _cut(row: Row) -> Row:
    """With texts that a page can show."""
    return {name: excerpt(value, LONGEST) if isinstance(value, str) else value for name, value in row.items()}


def asked(study: FinishedStudy, answers: dict[str, Answers], seed: int) -> list[Asked]:
    """Randomly drawn test questions of the target that all models answered."""
    known = [
        question
        for question in read_questions(study.data.path / "target-test.parquet")
        if all((question.benchmark, question.id) in own for own in answers.values())
    ]
    drawn = random.Random(seed).sample(known, min(SHOWN, len(known)))
    return [_asked(question, study.study.target, answers) for question in drawn]


def _asked(question: Question, target: Target, answers: dict[str, Answers]) -> Asked:
    rows = {arm: own[question.benchmark, question.id] for arm, own in answers.items()}
    attempts = [
        {"arm": arm, "row": row, "text": excerpt(row["completion"])}
        | {"picture": answer_picture(question, target, row["parsed"])}
        for arm, row in rows.items()
    ]
    prompts = list(dict.fromkeys(row["prompt"] for row in rows.values()))
    return Asked(question, prompts, question_pictures(question, target), solution_picture(question, target), attempts)


def lost(study: FinishedStudy, answers: dict[str, Answers], seed: int) -> dict[str, list[Lost]]:
    """By arm, a few randomly drawn questions that it lost, of different benchmarks where there are several."""
    base = answers.get(BASE, {})
    drawn = {arm: _drawn(base, own, seed) for arm, own in answers.items() if arm != BASE}
    questions = {
        (name, question.id): question
        for name in sorted({benchmark for keys in drawn.values() for benchmark, _ in keys})
        for question in read_questions(study.data.path / prior_shard(name))
    }

    def shown(arm: str, key: Key) -> Lost:
        after = answers[arm][key]
        return Lost(base[key], after, excerpt(after["completion"], 200), [*map(picture, pictures(questions[key]))])

    return {arm: [shown(arm, key) for key in keys] for arm, keys in drawn.items()}


def _drawn(base: Answers, own: Answers, seed: int) -> list[Key]:
    """One of each benchmark before a second of any."""
    known = [key for key, row in base.items() if row["role"] == "prior" and row["correct"] and key in own]
    gone = [key for key in known if not own[key]["correct"]]
    order = random.Random(seed).sample(gone, len(gone))
    names = [benchmark for benchmark, _ in order]
    turns = [names[:place].count(name) for place, name in enumerate(names)]
    return [order[place] for place in sorted(range(len(order)), key=lambda place: (turns[place], place))[:SHOWN]]


def excerpt(completion: str, longest: int = 800) -> str:
    """The beginning of a long completion."""
    return completion if len(completion) <= longest else completion[:longest] + " …"
