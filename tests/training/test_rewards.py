"""Rewards are arithmetic on what was written, and agree with the evaluation's grader."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from holdfast.benchmarks.catalog import grade
from holdfast.benchmarks.targets.jigsaw import prompt
from holdfast.config.measurement import Evaluation
from holdfast.config.methods import GRPO
from holdfast.config.study import Study
from holdfast.config.targets import Jigsaw
from holdfast.errors import UserError
from holdfast.training.arguments import trainer_config
from holdfast.training.completions import CompletionLog
from holdfast.training.rewards import REWARDS, Rewards, accuracy, format_reward, score

ANSWER = "2 1 4 3"
QUESTION = prompt(Jigsaw())
WRITTEN = {
    "<think> a </think> <answer> 2 1 4 3 </answer>": (1.0, 1.0, 1.0),
    "<think> a </think> <answer> 2 1 3 4 </answer>": (0.5, 0.0, 1.0),
    "<answer> 2 1 4 3 </answer>": (1.0, 1.0, 0.0),
    "<think> a </think> <answer> 2 1 4 </answer>": (0.0, 0.0, 1.0),
    "nothing": (0.0, 0.0, 0.0),
}


def columns(count: int, thinking: bool = True) -> dict[str, list]:
    asked = {"answer": ANSWER, "grader": "jigsaw", "thinking": thinking, "question": QUESTION}
    return {name: [value] * count for name, value in asked.items()}


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


def test_any_accepted_answer_is_rewarded() -> None:
    given = {"answer": ["yes"] * 3, "grader": ["exact", "exact", "vqa"], "accepted": [("yes", "no"), (), ("yes", "no")]}
    said = chats(["<answer> no </answer>"] * 3)
    assert accuracy(said, **given) == [1.0, 0.0, 1.0]
    assert score(said, **given) == [1.0, 0.0, 0.5]


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
    log.save(tmp_path)
    again = CompletionLog(tmp_path / "elsewhere" / "completions.parquet", group=1)
    again.load(tmp_path)
    assert again.rows == log.rows


def rewards_of(group: int, **terms: Any) -> Rewards:
    return Rewards(GRPO(method="grpo", rewards=terms).rewards, group, tokens=lambda text: len(text.split()))


def paid(rewards: Rewards, written: list[str], step: int = 0) -> tuple[dict[str, list[float]], dict[str, float]]:
    """What each term gives, and what is logged beside."""
    logged: dict[str, float] = {}
    given = {**columns(len(written)), "trainer_state": SimpleNamespace(global_step=step)}
    functions = rewards.functions().items()
    return {
        name: function(completions=chats(written), log_metric=logged.__setitem__, **given)
        for name, function in functions
    }, logged


def thinking(words: int, right: bool = True) -> str:
    return f"<think> {'so ' * words}</think> <answer> {ANSWER if right else '1 2 3 4'} </answer>"


LONGER = {"kind": "length", "variant": "minmax", "weight": 0.5}


def test_a_gated_term_pays_nothing_for_what_is_wrong() -> None:
    written = [thinking(0), thinking(4), thinking(8, right=False), thinking(2)]
    assert paid(rewards_of(4, open=LONGER), written)[0]["open"] == [0, 0.5, 1, 0.25]
    assert paid(rewards_of(4, gated={**LONGER, "gate": "correct"}), written)[0]["gated"] == [0, 0.5, 0, 0.25]


@pytest.mark.parametrize(("step", "share"), [(0, 0.0), (5, 0.5), (10, 1.0), (99, 1.0)])
def test_a_term_warms_up_with_the_steps(step: int, share: float) -> None:
    found, _ = paid(rewards_of(2, longer={**LONGER, "warm_up": 10}), [thinking(0), thinking(4)], step)
    assert found["longer"] == [0, share]


def test_length_is_compared_within_the_completions_of_one_prompt() -> None:
    found, _ = paid(rewards_of(2, longer=LONGER), [thinking(1), thinking(2), thinking(50), thinking(60)])
    assert found["longer"] == [0, 1, 0, 1]


def test_a_running_mean_goes_on_from_what_a_checkpoint_holds(tmp_path: Path) -> None:
    term = {"kind": "length", "variant": "running-mean"}
    first = rewards_of(2, near=term)
    assert paid(first, [thinking(2), thinking(6)])[0]["near"] == [0.25, 0.75]
    assert first.means == {"near": 4.0}
    assert paid(first, [thinking(8), thinking(8)])[0]["near"] == [1, 1]
    assert first.means["near"] == pytest.approx(0.9 * 4 + 0.1 * 8)
    first.save(tmp_path)
    again = rewards_of(2, near=term)
    again.load(tmp_path)
    assert again.means == first.means


def test_groups_that_teach_nothing_or_only_a_length_are_counted() -> None:
    groups = [
        [thinking(1), thinking(2)],
        [thinking(3), thinking(3)],
        [thinking(1, right=False), thinking(2, right=False)],
        [thinking(1), thinking(2, right=False)],
    ]
    written = [text for group in groups for text in group]
    _, logged = paid(rewards_of(2, score=1.0, format=1.0, longer=LONGER), written)
    assert logged == {"groups/all_right": 0.5, "groups/all_wrong": 0.25, "groups/length_only": 0.5}
    _, gated = paid(rewards_of(2, score=1.0, longer={**LONGER, "gate": "correct"}), written)
    assert gated["groups/length_only"] == 0.25
    _, without = paid(rewards_of(2, score=1.0, longer={**LONGER, "weight": 0.0}), written)
    assert without.keys() == {"groups/all_right", "groups/all_wrong"}
    _, alone = paid(rewards_of(2, longer=LONGER), written)
    assert alone["groups/length_only"] == 0.75
    _, judging = paid(rewards_of(2, longer={**LONGER, "variant": "kimi"}), written)
    assert judging["groups/length_only"] == 0.5


def test_what_each_weight_and_mapping_of_a_file_means() -> None:
    short = GRPO(method="grpo", rewards={"score": 1, "format": 0.5})
    assert {name: (term.kind, term.weight) for name, term in short.rewards.items()} == {
        "score": ("score", 1.0),
        "format": ("format", 0.5),
    }
    assert GRPO.model_validate_json(short.model_dump_json()) == short
    assert set(GRPO(method="grpo").rewards) == {"score", "accuracy", "format"}


@pytest.mark.parametrize(
    ("rewards", "words"),
    [
        ({"iou": 1.0}, "iou: is none of score"),
        ({"id": 1.0}, "id: tables of completions"),
        ({"x": {"kind": "length", "variant": "band"}}, "needs a longest"),
        ({"x": {"function": "no-colon"}}, "write module:function"),
        ({"score": {"weigth": 1.0}}, "weigth"),
        ({}, "at least 1"),
    ],
)
def test_a_reward_that_cannot_be_is_refused_by_name(rewards: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        GRPO(method="grpo", rewards=rewards)


def test_terms_that_the_target_gives_nothing_to_measure_are_refused() -> None:
    arms = {"rft": [{"method": "grpo", "rewards": {"longer": LONGER, "adjacency": 1.0}}]}
    with pytest.raises(ValidationError, match=r"arms\.rft\.0\.rewards\.longer: .*target\.thinking"):
        Study(name="x", arms=arms, target={"thinking": False})
    with pytest.raises(ValidationError, match=r"arms\.rft\.0\.rewards\.adjacency: .*target\.question"):
        Study(name="x", arms=arms, target={"question": "pair"})


def test_an_aggregation_that_trl_does_not_know_is_refused_before_training() -> None:
    for trainer, terms, words in [
        ({"multi_objective_aggregation": "sum"}, {"score": 1.0}, "normalize_then_sum"),
        ({"multi_objective_aggregation": "normalize_then_sum"}, {"score": {"warm_up": 3}}, r"rewards\.score\.warm_up"),
    ]:
        with pytest.raises(UserError, match=words):
            trainer_config(GRPO(method="grpo", rewards=terms, trainer=trainer), Evaluation(), {"output_dir": "unused"})
