"""What the report shows of single questions: target questions with each model's answer, and knowledge that was lost.

Examples are drawn by the study's seed, never picked.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import NamedTuple

from holdfast.analysis.forgetting import Flip, flips
from holdfast.analysis.records import Finished, Graded
from holdfast.config.targets import Target
from holdfast.data.chat import pictures
from holdfast.data.shards import Question, prior_shard, read_questions
from holdfast.report.pictures import Picture, assembled, picture, shown, solved

PUZZLES = 3
FLIPS = 3


class Attempt(NamedTuple):
    model: str
    graded: Graded
    text: str
    picture: Picture | None


class Puzzle(NamedTuple):
    question: Question
    shown: list[Picture]
    solved: Picture | None
    attempts: list[Attempt]


class Lost(NamedTuple):
    """A question that the base answered right and the arm no longer does."""

    flip: Flip
    text: str
    pictures: list[Picture]


def puzzles(finished: Finished, data: Path, target: Target, seed: int) -> list[Puzzle]:
    """Randomly drawn test puzzles, answered by the base and by every arm's last checkpoint."""
    answers = {"base": finished.base_graded, **{arm.name: arm.final for arm in finished.arms}}
    by_model = {name: {row.id: row for row in graded if row.role == "target"} for name, graded in answers.items()}
    asked = [question for question in read_questions(data / "target-test.parquet") if question.id in by_model["base"]]
    drawn = random.Random(seed).sample(asked, min(PUZZLES, len(asked)))
    return [_puzzle(question, target, by_model) for question in drawn]


def _puzzle(question: Question, target: Target, by_model: dict[str, dict[str, Graded]]) -> Puzzle:
    attempts = []
    for model, graded in by_model.items():
        row = graded[question.id]
        attempts.append(Attempt(model, row, excerpt(row.completion), assembled(question, target, row.parsed)))
    return Puzzle(question, shown(question, target), solved(question, target), attempts)


def lost(finished: Finished, data: Path, seed: int) -> dict[str, list[Lost]]:
    """Up to three randomly drawn flips of every arm, of different benchmarks where there are several."""
    drawn = {arm.name: _draw(flips(finished.base_graded, arm.final), seed) for arm in finished.arms}
    benchmarks = sorted({flip.before.benchmark for chosen in drawn.values() for flip in chosen})
    questions = {
        (name, question.id): question for name in benchmarks for question in read_questions(data / prior_shard(name))
    }
    return {
        arm: [
            Lost(
                flip,
                excerpt(flip.after.completion, 200),
                [picture(image) for image in pictures(questions[flip.before.key])],
            )
            for flip in chosen
        ]
        for arm, chosen in drawn.items()
    }


def _draw(found: list[Flip], seed: int) -> list[Flip]:
    order = random.Random(seed).sample(found, len(found))
    seen: dict[str, int] = {}
    turns = []
    for flip in order:
        turns.append(seen.setdefault(flip.before.benchmark, 0))
        seen[flip.before.benchmark] += 1
    ranked = sorted(range(len(order)), key=lambda index: (turns[index], index))
    return [order[index] for index in ranked[:FLIPS]]


def excerpt(completion: str, longest: int = 800) -> str:
    """The beginning of a long completion."""
    return completion if len(completion) <= longest else completion[:longest] + " …"
