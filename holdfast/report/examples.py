"""What a report shows of single questions: target questions with each model's answer, and knowledge that was lost.

Examples are drawn by the seed, never picked.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import NamedTuple

from holdfast.analysis.forgetting import Flip, flips
from holdfast.analysis.records import Finished, Graded
from holdfast.analysis.sweep_runs import BASE, Layout, Model
from holdfast.config.targets import Target
from holdfast.data.chat import pictures
from holdfast.data.shards import Question, prior_shard, read_questions
from holdfast.report.pictures import Picture, answer_picture, picture, question_pictures, solution_picture

PUZZLES = 3
FLIPS = 3
CASES = 3


class Attempt(NamedTuple):
    model: str
    graded: Graded
    text: str
    picture: Picture | None


class Puzzle(NamedTuple):
    question: Question
    pictures: list[Picture]
    solved: Picture | None
    attempts: list[Attempt]


class Lost(NamedTuple):
    """A question that the base answered right and the arm no longer does."""

    flip: Flip
    text: str
    pictures: list[Picture]


def puzzles(finished: Finished, data: Path, target: Target, seed: int) -> list[Puzzle]:
    """Randomly drawn test questions, answered by the base and by every arm's last checkpoint."""
    answers = {"base": finished.base_graded, **{arm.name: arm.final for arm in finished.arms}}
    by_model = {name: {row.id: row for row in graded if row.role == "target"} for name, graded in answers.items()}
    asked = [question for question in read_questions(data / "target-test.parquet") if question.id in by_model["base"]]
    drawn = random.Random(seed).sample(asked, min(PUZZLES, len(asked)))
    return [_puzzle(question, target, by_model) for question in drawn]


def _puzzle(question: Question, target: Target, by_model: dict[str, dict[str, Graded]]) -> Puzzle:
    attempts = []
    for model, graded in by_model.items():
        row = graded[question.id]
        attempts.append(Attempt(model, row, excerpt(row.completion), answer_picture(question, target, row.parsed)))
    return Puzzle(question, question_pictures(question, target), solution_picture(question, target), attempts)


def lost(finished: Finished, data: Path, seed: int) -> dict[str, list[Lost]]:
    """Up to three randomly drawn flips of every arm, of different benchmarks where there are several."""
    drawn = {arm.name: _draw_flips(flips(finished.base_graded, arm.final), seed) for arm in finished.arms}
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


def _draw_flips(found: list[Flip], seed: int) -> list[Flip]:
    order = random.Random(seed).sample(found, len(found))
    seen: dict[str, int] = {}
    turns = []
    for flip in order:
        turns.append(seen.setdefault(flip.before.benchmark, 0))
        seen[flip.before.benchmark] += 1
    ranked = sorted(range(len(order)), key=lambda index: (turns[index], index))
    return [order[index] for index in ranked[:FLIPS]]


class CaseAnswer(NamedTuple):
    """A model's answer to a question that others answered too; `series` is its number, None for the base."""

    name: str
    series: int | None
    graded: Graded
    text: str
    picture: Picture | None


class AnsweringModel(NamedTuple):
    """A model that is quoted, with its answers by question."""

    name: str
    series: int | None
    model: Model
    rows: dict[str, Graded]


class Case(NamedTuple):
    """A question with every series' whole completion side by side."""

    question: Question
    prompts: list[str]
    """As the models were asked; more than one where a factor changes the wording."""
    pictures: list[Picture]
    solved: Picture | None
    answers: list[CaseAnswer]


def cases(layout: Layout, seed: int) -> dict[str, list[Case]]:
    """By panel, at its members with the most training questions."""
    return {panel: _draw_cases(layout, panel, seed) for panel in layout.panels}


def _draw_cases(layout: Layout, panel: str, seed: int) -> list[Case]:
    models = _answering_models(layout, panel)
    first = layout.settings[models[0].model.setting]
    questions = {question.id: question for question in read_questions(first.data / "target-test.parquet")}
    common = [name for name, asked in questions.items() if all(_answered(model, asked) for model in models)]
    chosen = random.Random(seed).sample(common, min(CASES, len(common)))
    return [_case(questions[name], first.study.target, models) for name in chosen]


def _answering_models(layout: Layout, panel: str) -> list[AnsweringModel]:
    """The bases and the series of the members with the most training questions; of repeats, the first."""
    named: list[tuple[str, int | None, str, tuple[str, ...]]] = [
        (layout.series_name("base", levels), None, BASE, levels) for levels in layout.combinations
    ]
    named += [(series.name, index, series.arm, series.levels) for index, series in enumerate(layout.series)]
    found = []
    for name, index, arm, levels in named:
        members = [model.setting for model in layout.models(BASE, levels, panel)]
        most = max(members, key=lambda setting: layout.settings[setting].samples or 0, default=None)
        if most is not None and arm in (BASE, *layout.settings[most].arms):
            rows = {row.id: row for row in layout.settings[most].target(arm)}
            found.append(AnsweringModel(name, index, Model(most, arm), rows))
    return found


def _answered(model: AnsweringModel, question: Question) -> bool:
    row = model.rows.get(question.id)
    return row is not None and (row.image_id, row.answer) == (question.image_id, question.answer)


def _case(question: Question, target: Target, models: list[AnsweringModel]) -> Case:
    answers = [
        CaseAnswer(model.name, model.series, row, excerpt(row.completion), answer_picture(question, target, row.parsed))
        for model in models
        for row in (model.rows[question.id],)
    ]
    prompts = list(dict.fromkeys(one.graded.prompt for one in answers))
    return Case(question, prompts, question_pictures(question, target), solution_picture(question, target), answers)


def excerpt(completion: str, longest: int = 800) -> str:
    """The beginning of a long completion."""
    return completion if len(completion) <= longest else completion[:longest] + " …"
