"""Signs that a training learns something else than the skill, or nothing, read from the stream of logged metrics.

An alarm goes off once an episode: when its condition comes true, and again only after the condition was false for
`CALM` looks. Alarms are a function of the stream alone, so a resumed training, fed what it kept, raises the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from statistics import fmean
from typing import NamedTuple

from holdfast.config.rewards import RewardTerm

Metrics = Mapping[str, float]
Look = Callable[[Metrics], str | None]
"""A sentence while something is wrong, "" while not, None if these metrics say nothing about it."""

CALM = 5
"""Looks that end an episode: a value that wavers about its threshold is one episode."""
RECENT = 5
"""Logged values that are averaged: a tenth of a training at the default logging, beyond one odd batch."""
EARLY = 10
"""Logged values at the beginning, and at the end, that learning of form alone is judged by."""
LOOKBACK = 2
"""Evaluations over which reward and skill are compared; a single one is within the noise of a hundred questions."""
REWARD_RISE = 0.25
"""Standard deviations of the reward between completions. Groups are that far apart by chance in one batch of sixteen,
not in the mean over all batches between two evaluations."""
SKILL_RISE = 0.02
"""Of a score between 0 and 1; half a standard error of the mean over two hundred questions. Less is no progress."""
FORMAT_RISE = 0.2
"""Of a share: clearly more than form wavers once it is learned."""
ZERO_SPREAD = 0.8
"""Share of groups without any spread; at four of five, a batch teaches as much as one of a fifth of its size."""
GROWTH = 2.0
"""Times the mean length at the beginning. Reasoning that pays grows over hundreds of steps, and with the score."""
CLIPPED = 0.5
"""Share of completions cut off by the limit; when it is every other one, the limit decides the reward."""
LENGTH_ONLY = 0.5
"""Share of groups that learn from their lengths alone: most of the gradient is no longer about the task."""


NON_FINITE = "non-finite"
"""The alarm of a loss, or of weights, that are no numbers any more."""


class Alarm(NamedTuple):
    """What went off, when, and why in one sentence."""

    name: str
    step: int
    sentence: str


class Alarms:
    """All alarms of a stage, by the terms that reward it, if any do."""

    def __init__(self, terms: Mapping[str, RewardTerm]) -> None:
        looks: dict[str, Look] = {
            "reward-without-skill": Drift(),
            "format-only": FormOnly(_first(terms, "format"), _first(terms, "accuracy") or _first(terms, "score")),
            "no-spread": Level(
                "train/frac_reward_zero_std", ZERO_SPREAD, "of the groups got the same reward throughout"
            ),
            "length": Growth(),
            "clipped": Level(
                "train/completions/clipped_ratio", CLIPPED, "of the completions were cut off by the limit"
            ),
            "length-only": Level("train/groups/length_only", LENGTH_ONLY, "of the groups learned from length alone"),
            NON_FINITE: not_finite,
        }
        self.warm = max((term.warm_up for term in terms.values()), default=0)
        self.episodes = {name: Episode(look) for name, look in looks.items()}

    def take(self, step: int, metrics: Metrics) -> list[Alarm]:
        """Look at what was logged at a step; returns what goes off.

        While terms warm up nothing does but a loss that is not finite: rewards rise.
        """
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        looking = [NON_FINITE] if step <= self.warm else list(self.episodes)
        found = {name: self.episodes[name].take(metrics if name == NON_FINITE else finite) for name in looking}
        return [Alarm(name, step, sentence) for name, sentence in found.items() if sentence]


class Episode:
    """Says a look's sentence once."""

    def __init__(self, look: Look) -> None:
        self.look, self.calm = look, CALM

    def take(self, metrics: Metrics) -> str:
        sentence = self.look(metrics)
        if sentence is None:
            return ""
        if not sentence:
            self.calm += 1
            return ""
        told, self.calm = self.calm < CALM, 0
        return "" if told else sentence


def not_finite(metrics: Metrics) -> str | None:
    """The loss is not finite."""
    loss = metrics.get("train/loss")
    if loss is None:
        return None
    return "" if math.isfinite(loss) else f"the loss is {loss}"


class Level:
    """The mean of the latest values of a metric, a share, is high."""

    def __init__(self, metric: str, limit: float, what: str) -> None:
        self.metric, self.limit, self.what = metric, limit, what
        self.values: list[float] = []

    def __call__(self, metrics: Metrics) -> str | None:
        if self.metric not in metrics:
            return None
        self.values = [*self.values[1 - RECENT :], metrics[self.metric]]
        share = fmean(self.values)
        return f"{share:.0%} {self.what}" if len(self.values) == RECENT and share >= self.limit else ""


class Growth:
    """Completions have become much longer than they were."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def __call__(self, metrics: Metrics) -> str | None:
        if "train/completions/mean_length" not in metrics:
            return None
        self.values.append(metrics["train/completions/mean_length"])
        if len(self.values) < 2 * RECENT:
            return ""
        before, now = fmean(self.values[:RECENT]), fmean(self.values[-RECENT:])
        return f"completions grew from {before:.0f} to {now:.0f} tokens" if now >= GROWTH * max(before, 1) else ""


class FormOnly:
    """The form of answers gets better and the answers do not."""

    def __init__(self, form: str, task: str) -> None:
        self.names = [f"train/rewards/{name}/mean" for name in (form, task)] if form and task else []
        self.values: list[list[float]] = []

    def __call__(self, metrics: Metrics) -> str | None:
        if not self.names or any(name not in metrics for name in self.names):
            return None
        self.values.append([metrics[name] for name in self.names])
        if len(self.values) < 2 * EARLY:
            return ""
        (form, task), (form_now, task_now) = _means(self.values[:EARLY]), _means(self.values[-EARLY:])
        if form_now - form < FORMAT_RISE or task_now - task >= SKILL_RISE:
            return ""
        return (
            f"the format reward went from {form:.2f} to {form_now:.2f}, right answers from {task:.2f} to {task_now:.2f}"
        )


class Drift:
    """The reward rises from evaluation to evaluation, and the score on validation questions does not."""

    def __init__(self) -> None:
        self.rewards: list[list[float]] = []
        """Mean and standard deviation of the reward, since the last evaluation."""
        self.evaluated: list[list[float]] = []
        """Score, and the means of these, by evaluation."""

    def __call__(self, metrics: Metrics) -> str | None:
        if "train/reward" in metrics and "train/reward_std" in metrics:
            self.rewards.append([metrics["train/reward"], metrics["train/reward_std"]])
        names = [name for name in metrics if name.startswith("validation/target/") and name.endswith("/score")]
        if not names or not self.rewards:
            return None
        self.evaluated.append([metrics[names[0]], *_means(self.rewards)])
        self.rewards = []
        if len(self.evaluated) <= LOOKBACK:
            return ""
        (score, reward, spread), (score_now, reward_now, _) = self.evaluated[-1 - LOOKBACK], self.evaluated[-1]
        if reward_now - reward < REWARD_RISE * spread or reward_now <= reward or score_now - score >= SKILL_RISE:
            return ""
        return (
            f"over {LOOKBACK} evaluations the reward rose from {reward:.2f} to {reward_now:.2f}, "
            f"the validation score went from {score:.2f} to {score_now:.2f}"
        )


def _means(rows: list[list[float]]) -> list[float]:
    return [fmean(column) for column in zip(*rows, strict=True)]


def _first(terms: Mapping[str, RewardTerm], kind: str) -> str:
    return next((name for name, term in terms.items() if term.kind == kind), "")
