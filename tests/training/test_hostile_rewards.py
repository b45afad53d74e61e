"""Ten thousand hostile completions through every reward term: bounded, unmoved by order and batch, seldom paid."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
from hostile import hostile

from holdfast.benchmarks.grading.answer import answer_text, thought
from holdfast.benchmarks.targets.jigsaw import prompt
from holdfast.config.methods import GRPO
from holdfast.config.targets import Jigsaw
from holdfast.training.length_rewards import least
from holdfast.training.rewards import Rewards

ANSWER, COUNT, GROUP = "2 1 4 3", 10_000, 4
LENGTH = {"kind": "length", "unit": "words"}
TERMS: dict[str, Any] = {
    "score": 1.0,
    "accuracy": 1.0,
    "format": 1.0,
    "adjacency": 1.0,
    "minmax": {**LENGTH, "variant": "minmax"},
    "gated": {**LENGTH, "variant": "minmax", "gate": "correct"},
    "kimi": {**LENGTH, "variant": "kimi"},
    "longer": {**LENGTH, "variant": "kimi-longer"},
    "zscore": {**LENGTH, "variant": "zscore"},
    "mean": {**LENGTH, "variant": "running-mean"},
    "band": {**LENGTH, "variant": "band", "low": 1, "high": 20},
    "cosine": {**LENGTH, "variant": "cosine", "high": 50},
    "brevity": {**LENGTH, "variant": "brevity", "high": 50},
}


def paid(name: str, written: list[str], mean: float = 5.0) -> list[float]:
    rewards = Rewards(GRPO(method="grpo", rewards={name: TERMS[name]}).rewards, GROUP, tokens=len)
    rewards.means = {name: mean}
    asked = {"answer": ANSWER, "grader": "jigsaw", "thinking": True, "question": prompt(Jigsaw())}
    columns = {column: [value] * len(written) for column, value in asked.items()}
    chats = [[{"role": "assistant", "content": text}] for text in written]
    state = SimpleNamespace(global_step=7)
    return rewards.reward(name, chats, trainer_state=state, log_metric=lambda *_: None, **columns)


@pytest.fixture(scope="module")
def written() -> list[str]:
    """A third of them in the right form, with hostile text where the reasoning stands."""
    rng = random.Random("hostile rewards")
    texts = [hostile(rng, ANSWER) for _ in range(COUNT)]
    for number in range(0, COUNT, 3):
        answer = rng.choice((ANSWER, "1 2 3 4", "2 1 4", ""))
        texts[number] = f"<think> {texts[number]} </think> <answer> {answer} </answer>"
    return texts


@pytest.mark.parametrize("name", TERMS)
def test_hostile_completions_are_rewarded_within_bounds_whatever_stands_beside(name: str, written: list[str]) -> None:
    term = GRPO(method="grpo", rewards={name: TERMS[name]}).rewards[name]
    low = least(term) if term.kind == "length" else 0.0
    rewards = paid(name, written)
    assert all(low <= value <= 1 for value in rewards)
    halves = paid(name, written[: COUNT // 2]) + paid(name, written[COUNT // 2 :])
    assert halves == rewards
    backwards = paid(name, written[::-1])[::-1]
    assert backwards == pytest.approx(rewards, abs=1e-9)
    for text, value in zip(written, rewards, strict=True):
        if thought(text) is None and term.kind == "length":
            assert value == low
        if answer_text(text) is None and name in ("score", "accuracy", "adjacency", "gated"):
            assert value == 0
        if name == "format" and value:
            assert text.count("<think>") == text.count("<answer>") == 1


def test_a_gigantic_completion_is_rewarded() -> None:
    """At once; anything quadratic would not come back."""
    texts = ["<think>" * 100_000, "<think> " + "so " * 300_000 + "</think>", " " * 1_000_000, "<answer>" * 100_000]
    for name in TERMS:
        assert all(-1 <= value <= 1 for value in paid(name, texts))
