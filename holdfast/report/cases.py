"""Test questions with every series' whole completion side by side. They are drawn by the seed, never picked."""

from __future__ import annotations

import random
from typing import NamedTuple

from holdfast.analysis.records import Graded
from holdfast.analysis.sweep_runs import BASE, Layout, Model
from holdfast.config.targets import Target
from holdfast.data.shards import Question, read_questions
from holdfast.report.examples import excerpt
from holdfast.report.pictures import Picture, assembled, shown, solved

CASES = 3


class Said(NamedTuple):
    """A model's answer; `series` is its place, None for the base."""

    name: str
    series: int | None
    graded: Graded
    text: str
    picture: Picture | None


class Speaker(NamedTuple):
    """A model that is quoted, with its answers by question."""

    name: str
    series: int | None
    model: Model
    rows: dict[str, Graded]


class Case(NamedTuple):
    question: Question
    prompts: list[str]
    """As the models were asked; more than one where a factor changes the wording."""
    shown: list[Picture]
    solved: Picture | None
    said: list[Said]


def cases(layout: Layout, seed: int) -> dict[str, list[Case]]:
    """By panel, at its members with the most training questions."""
    return {panel: _drawn(layout, panel, seed) for panel in layout.panels}


def _drawn(layout: Layout, panel: str, seed: int) -> list[Case]:
    speakers = _speakers(layout, panel)
    first = layout.settings[speakers[0].model.setting]
    questions = {question.id: question for question in read_questions(first.data / "target-test.parquet")}
    common = [name for name, asked in questions.items() if all(_answered(speaker, asked) for speaker in speakers)]
    chosen = random.Random(seed).sample(common, min(CASES, len(common)))
    return [_case(questions[name], first.study.target, speakers) for name in chosen]


def _speakers(layout: Layout, panel: str) -> list[Speaker]:
    """The bases and the series of the members with the most training questions; of repeats, the first."""
    named: list[tuple[str, int | None, str, tuple[str, ...]]] = [
        (layout.series_name("base", levels), None, BASE, levels) for levels in layout.combinations
    ]
    named += [(series.name, place, series.arm, series.levels) for place, series in enumerate(layout.series)]
    found = []
    for name, place, arm, levels in named:
        places = [model.setting for model in layout.models(BASE, levels, panel)]
        most = max(places, key=lambda setting: layout.settings[setting].samples or 0, default=None)
        if most is not None and arm in (BASE, *layout.settings[most].arms):
            rows = {row.id: row for row in layout.settings[most].target(arm)}
            found.append(Speaker(name, place, Model(most, arm), rows))
    return found


def _answered(speaker: Speaker, question: Question) -> bool:
    row = speaker.rows.get(question.id)
    return row is not None and (row.image_id, row.answer) == (question.image_id, question.answer)


def _case(question: Question, target: Target, speakers: list[Speaker]) -> Case:
    said = [
        Said(who.name, who.series, row, excerpt(row.completion), assembled(question, target, row.parsed))
        for who in speakers
        for row in (who.rows[question.id],)
    ]
    prompts = list(dict.fromkeys(one.graded.prompt for one in said))
    return Case(question, prompts, shown(question, target), solved(question, target), said)
