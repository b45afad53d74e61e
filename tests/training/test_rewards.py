"""Rewards are arithmetic on what was written, and agree with the evaluation's grader."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from holdfast.benchmarks.catalog import grade
from holdfast.training.completions import CompletionLog
from holdfast.training.rewards import REWARDS, accuracy, format_reward, score

ANSWER = "2 1 4 3"
WRITTEN = {
    "<think> a </think> <answer> 2 1 4 3 </answer>": (1.0, 1.0, 1.0),
    "<think> a </think> <answer> 2 1 3 4 </answer>": (0.5, 0.0, 1.0),
    "<answer> 2 1 4 3 </answer>": (1.0, 1.0, 0.0),
    "<think> a </think> <answer> 2 1 4 </answer>": (0.0, 0.0, 1.0),
    "nothing": (0.0, 0.0, 0.0),
}


def columns(count: int, thinking: bool = True) -> dict[str, list]:
    return {"answer": [ANSWER] * count, "grader": ["jigsaw"] * count, "thinking": [thinking] * count}


def chats(texts: list[str]) -> list[list[dict[str, str]]]:
    return [[{"role": "assistant", "content": text}] for text in texts]


@pytest.mark.parametrize(("text", "parts"), WRITTEN.items())
def test_the_parts_of_a_reward_are_partial_credit_all_right_and_format(
    text: str, parts: tuple[float, float, float]
) -> None:
    given = columns(1)
    assert (
        *score(chats([text]), **given),
        *accuracy(chats([text]), **given),
        *format_reward(chats([text]), **given),
    ) == parts


def test_a_prompt_that_asks_for_no_reasoning_is_answered_in_form_without_it() -> None:
    assert format_reward(chats(["<answer> 2 1 4 3 </answer>"]), **columns(1, thinking=False)) == [1.0]


def test_a_reward_is_the_evaluations_grade() -> None:
    texts = list(WRITTEN)
    verdicts = [grade("jigsaw", text, ANSWER) for text in texts]
    assert score(chats(texts), **columns(len(texts))) == [verdict.score for verdict in verdicts]
    assert accuracy(chats(texts), **columns(len(texts))) == [float(verdict.correct) for verdict in verdicts]


def test_logged_completions_carry_every_part_and_are_rewound(tmp_path: Path) -> None:
    log = CompletionLog(tmp_path / "completions.parquet", group=1)
    texts = list(WRITTEN)
    prompts = [[{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "ask"}]}]] * len(texts)
    for step in (0, 1, 2, 4):
        state = SimpleNamespace(global_step=step, logging_steps=2)
        for name, reward in REWARDS.items():
            watched = log.watched(name, reward)
            ids = [str(index) for index in range(len(texts))]
            watched(completions=chats(texts), prompts=prompts, id=ids, trainer_state=state, **columns(len(texts)))
    assert [(row["step"], row["id"]) for row in log.rows] == [
        (0, "0"),
        (0, "1"),
        (2, "0"),
        (2, "1"),
        (4, "0"),
        (4, "1"),
    ]
    assert [(row["score"], row["accuracy"], row["format"]) for row in log.rows[:2]] == list(WRITTEN.values())[:2]
    log.write()
    again = CompletionLog(tmp_path / "completions.parquet", group=1)
    again.rewind(4)
    assert again.rows == log.rows[:4]
