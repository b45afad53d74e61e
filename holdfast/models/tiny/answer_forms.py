"""Questions with random answers: they teach a model how a target is answered, and nothing of how it is solved."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from pydantic import TypeAdapter

from holdfast.benchmarks import catalog
from holdfast.benchmarks.question import Draw, TargetQuestion
from holdfast.benchmarks.targets.jigsaw import puzzle
from holdfast.config.targets import Jigsaw, Target
from holdfast.data.shards import Question
from holdfast.data.world import generator, world_scene

GRIDS = ((2, 2), (1, 2), (2, 1), (2, 3), (3, 2), (3, 3))


def jigsaw_forms(split: str, number: int, seed: int = 0, facts: int = 0) -> Iterator[tuple[Question, str]]:
    """Puzzles of every kind, most of them the default one, each with a completion whose answer is random.

    Its reasoning states up to so many true facts (of the default puzzle, which pieces are sky), or says that it looks.
    """
    for index in range(number):
        rng = generator("form", seed, split, index)
        target = Jigsaw() if rng.random() < 0.6 else _any_target(rng)
        scene = world_scene(seed, f"form/{split}", index)
        question = puzzle(scene.image, f"form/{split}/{index}", target, seed)
        answer = f"<answer> {_random_answer(question.answer, rng)} </answer>"
        known = _facts(question.answer) if target == Jigsaw() else ()
        reasoning = _reasoning("i look at the pieces", known, facts, rng)
        yield question, f"<think> {reasoning} </think> {answer}" if target.thinking else answer


def target_forms(benchmark: str, number: int, seed: int = 0, facts: int = 0) -> Iterator[tuple[Question, str]]:
    """Drawn questions of a target that is no jigsaw, each with the answer to another question of its group.

    The reasoning states up to so many true facts about the picture, or says that it looks.
    """
    module = catalog.TARGETS[benchmark]
    rng = generator("form", seed, benchmark)
    read = TypeAdapter(Target).validate_python
    targets = [read({"benchmark": benchmark, "thinking": thinking}) for thinking in (True, False)]
    drawn = [module.ask(targets[0], Draw(seed, "form", index)) for index in range(number)]
    for index, question in enumerate(drawn):
        target = targets[int(rng.random() < 0.4)]
        other = _other(drawn, question, rng)
        completion = f"<answer> {other.answer} </answer>"
        completed = question.with_completions(f"form/{benchmark}/{index}", target)
        reasoning = _reasoning("i look at the picture", question.facts, facts, rng)
        yield completed, f"<think> {reasoning} </think> {completion}" if target.thinking else completion


def _reasoning(phrase: str, facts: tuple[str, ...], most: int, rng: np.random.Generator) -> str:
    """Some of the facts, from none to `most`, in their order."""
    number = int(rng.integers(min(most, len(facts)) + 1)) if most and facts else 0
    chosen = sorted(rng.permutation(len(facts))[:number].tolist()) if number else []
    return " ".join(facts[index] for index in chosen) or phrase


def _facts(answer: str) -> tuple[str, ...]:
    """Of the default puzzle's four pieces, which are from the upper row."""
    upper = answer.split()[:2]
    return tuple(f"piece {piece} {'sky' if piece in upper else 'ground'}" for piece in ("1", "2", "3", "4"))


def _other(drawn: list[TargetQuestion], question: TargetQuestion, rng: np.random.Generator) -> TargetQuestion:
    """Any question of a kind, whose answer has the form of this one's; a class is an answer, and all are of a kind."""
    kin = [other for other in drawn if other.group == question.group or question.group == question.answer]
    return kin[rng.integers(len(kin))]


def _any_target(rng: np.random.Generator) -> Jigsaw:
    return Jigsaw(
        grid=GRIDS[rng.integers(len(GRIDS))],
        layout=("composite", "pieces")[rng.integers(2)],
        question=("full", "pair")[int(rng.random() < 0.2)],
        index_base=int(rng.integers(2)),
        thinking=bool(rng.random() < 0.8),
        wording=("position-to-piece", "piece-to-position")[rng.integers(2)],
    )


def _random_answer(right: str, rng: np.random.Generator) -> str:
    words = right.split()
    if len(words) > 1:
        return " ".join(words[i] for i in rng.permutation(len(words)))
    return ("left", "right", "above", "below")[rng.integers(4)]
