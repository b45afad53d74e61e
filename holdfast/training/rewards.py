"""Verifiable rewards as TRL calls them: plain functions of completions and of the questions' columns.

They read and grade an answer by the same functions as the evaluation, so a reward and a score cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from holdfast.benchmarks.answers import formatted
from holdfast.benchmarks.catalog import grade

Reward = Callable[..., list[float]]
Chats = list[list[dict[str, str]]]
"""For every completion the one assistant message that holds it."""


def texts(completions: Chats) -> list[str]:
    """What was written."""
    return [messages[0]["content"] for messages in completions]


def score(completions: Chats, answer: list[str], grader: list[str], **_: Any) -> list[float]:
    """Partial credit: for a jigsaw the share of indices that are right."""
    return [grade(*given).score for given in zip(grader, texts(completions), answer, strict=True)]


def accuracy(completions: Chats, answer: list[str], grader: list[str], **_: Any) -> list[float]:
    """1 if all is right."""
    return [float(grade(*given).correct) for given in zip(grader, texts(completions), answer, strict=True)]


def format_reward(completions: Chats, thinking: list[bool], **_: Any) -> list[float]:
    """1 if the completion is what the prompt asked for: an answer in its tags, after reasoning in its tags or not."""
    return [float(formatted(text, asked)) for text, asked in zip(texts(completions), thinking, strict=True)]


REWARDS: dict[str, Reward] = {"score": score, "accuracy": accuracy, "format": format_reward}
