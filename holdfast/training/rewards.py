"""Verifiable rewards as TRL calls them: functions of completions and of the questions' columns.

They read and grade an answer by the same functions as the evaluation, so a reward and a score cannot disagree.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.benchmarks.catalog import grade
from holdfast.benchmarks.grading.answer import Grade, formatted, thought
from holdfast.benchmarks.targets import jigsaw
from holdfast.config.rewards import LengthTerm, RewardTerm
from holdfast.training.length_rewards import length_rewards
from holdfast.training.reward_functions import call, loaded

Reward = Callable[..., list[float]]
Ratios = Callable[[Sequence[str], Sequence[Sequence[int]]], list[float]]
"""From questions' ids and completions' tokens to mean log-ratios."""
Chats = list[list[dict[str, str]]]
"""For every completion the one assistant message that holds it."""

STATE = "rewards.json"
DECAY = 0.9
"""Of the running mean of lengths, a generation: it forgets what is older than some ten generations."""


def texts(completions: Chats) -> list[str]:
    """What was written."""
    return [messages[0]["content"] for messages in completions]


def score(completions: Chats, **columns: Any) -> list[float]:
    """Partial credit: for a jigsaw the share of indices that are right, for a box the IoU."""
    return [verdict.score for verdict in _grades(completions, **columns)]


def accuracy(completions: Chats, **columns: Any) -> list[float]:
    """1 if all is right."""
    return [float(verdict.correct) for verdict in _grades(completions, **columns)]


def _grades(
    completions: Chats, answer: list[str], grader: list[str], accepted: list[Sequence[str]] | None = None, **_: Any
) -> list[Grade]:
    """By each question's own grader; any of its accepted answers is right."""
    several = accepted or [()] * len(completions)
    return [grade(*given) for given in zip(grader, texts(completions), answer, several, strict=True)]


def format_reward(completions: Chats, thinking: list[bool], **_: Any) -> list[float]:
    """1 if the completion is what the prompt asked for: an answer in its tags, after reasoning in its tags or not."""
    return [float(formatted(text, asked)) for text, asked in zip(texts(completions), thinking, strict=True)]


def adjacency(completions: Chats, answer: list[str], question: list[str], **_: Any) -> list[float]:
    """Of a jigsaw, the share of neighbouring pieces that stay neighbours, on the same sides of each other."""
    return [jigsaw.adjacency(*given) for given in zip(texts(completions), answer, question, strict=True)]


REWARDS: dict[str, Reward] = {
    "score": score,
    "accuracy": accuracy,
    "format": format_reward,
    "adjacency": adjacency,
}


def retained(ratios: Sequence[float], sharpness: float) -> list[float]:
    """exp(−α · max(0, mean log-ratio)) of each completion (RaPO, arXiv 2605.09640): 1 where the model as it was finds
    it as likely, or likelier."""
    return [math.exp(-sharpness * max(0.0, ratio)) for ratio in ratios]


def unpaid(name: str) -> Reward:
    """In place of a term's rewards where another process gives them."""

    def nothing(completions: Chats, **_: Any) -> list[float]:
        return [0.0] * len(completions)

    nothing.__name__ = name
    return nothing


class Rewards:
    """A stage's reward terms. `group` consecutive completions answer one prompt; `tokens` counts those of a text."""

    def __init__(self, terms: Mapping[str, RewardTerm], group: int, tokens: Callable[[str], int]) -> None:
        self.terms, self.group, self.tokens = terms, group, tokens
        own = {name: term.function for name, term in terms.items() if term.kind == "function"}
        self.own = {name: loaded(f"rewards.{name}: {path}", path) for name, path in own.items()}
        self.means: dict[str, float] = {}
        """Running means of lengths, by term."""
        self.given: dict[str, np.ndarray] = {}
        self.log_ratios: Ratios | None = None
        """Of completions to the model as the stage found it; without it, they are that model's own, as in a trial."""

    def functions(self) -> dict[str, Reward]:
        """A function a term for TRL, which calls them in this order."""
        return {name: partial(self.reward, name) for name in self.terms}

    def reward(self, name: str, completions: Chats, **columns: Any) -> list[float]:
        """One term's rewards, gated and warmed up; the last term that is asked for also logs how groups differ."""
        term = self.terms[name]
        values = np.array(self._values(name, term, completions, columns))
        right = np.array(accuracy(completions, **columns)) == 1
        if term.gate:
            values = np.where(right | np.isnan(values), values, 0.0)
        if term.warm_up:
            values = values * min(1.0, columns["trainer_state"].global_step / term.warm_up)
        self.given[name] = values.reshape(-1, self.group)
        if len(self.given) == len(self.terms):
            for metric, share in group_metrics(self.terms, self.given, right.reshape(-1, self.group)).items():
                columns["log_metric"](metric, share)
            self.given = {}
        return values.tolist()

    def _values(self, name: str, term: RewardTerm, completions: Chats, columns: dict[str, Any]) -> list[float]:
        if term.kind == "function":
            return call(f"rewards.{name}: {term.function}", self.own[name], completions, columns)
        if term.kind == "length":
            right = np.array(accuracy(completions, **columns)) == 1
            return self._lengths(name, term, texts(completions), right)
        if term.kind == "retention":
            ratios = [0.0] * len(completions)
            if self.log_ratios is not None:
                ratios = self.log_ratios(columns["id"], columns["completion_ids"])
            columns["log_metric"]("retention/log_ratio", float(np.mean(ratios)))
            return retained(ratios, term.sharpness)
        return REWARDS[term.kind](completions=completions, **columns)

    def _lengths(self, name: str, term: LengthTerm, written: list[str], right: np.ndarray) -> list[float]:
        count = self.tokens if term.unit == "tokens" else _words
        thoughts = map(thought, written)
        lengths = np.array([math.nan if text is None else count(text) for text in thoughts]).reshape(-1, self.group)
        values = length_rewards(term, lengths, right.reshape(lengths.shape), self.means.get(name))
        if term.variant == "running-mean" and not np.isnan(lengths).all():
            now = float(np.nanmean(lengths))
            self.means[name] = DECAY * self.means.get(name, now) + (1 - DECAY) * now
        return values.ravel().tolist()

    def save(self, directory: Path) -> None:
        """Leave in a checkpoint what the next generation's rewards depend on, if anything."""
        if self.means:
            (directory / STATE).write_text(json.dumps(self.means))

    def load(self, directory: Path) -> None:
        """Go on from a checkpoint."""
        state = directory / STATE
        self.means = json.loads(state.read_text()) if state.is_file() else {}


def _words(text: str) -> int:
    return len(text.split())


def token_counter(tokenizer: Any) -> Callable[[str], int]:
    """How many tokens of a model's a text takes."""
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])


def group_metrics(
    terms: Mapping[str, RewardTerm], values: Mapping[str, np.ndarray], right: np.ndarray
) -> dict[str, float]:
    """Shares of groups; all arrays are (groups, rollouts), `right` says which completions are all right.

    `groups/all_right` and `groups/all_wrong`; with length terms that count, also `groups/length_only`: nothing but
    length sets a group's completions apart, so what is learned from it is to write longer or shorter.
    """
    found = {"groups/all_right": right.all(1).mean(), "groups/all_wrong": (~right).all(1).mean()}
    counting = {name: term for name, term in terms.items() if term.weight}
    lengths = [name for name, term in counting.items() if term.kind == "length"]
    if lengths:
        tasks = [values[name] for name in counting if name not in lengths]
        if any(counting[name].judges for name in lengths):
            tasks.append(right)
        apart = np.any([_differs(values[name]) for name in lengths], 0)
        told = np.any([_differs(task) for task in tasks], 0) if tasks else np.zeros(len(right), bool)
        found["groups/length_only"] = (apart & ~told).mean()
    return {name: float(share) for name, share in found.items()}


def _differs(values: np.ndarray) -> np.ndarray:
    """In which groups not all values are the same."""
    same = (values == values[:, :1]) | (np.isnan(values) & np.isnan(values[:, :1]))
    return ~same.all(1)
