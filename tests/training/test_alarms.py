"""Alarms on streams by hand: what sets each one off, what does not, and that an episode is told once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.config.methods import GRPO
from holdfast.training.alarms import EARLY, RECENT, Alarm, Alarms

LENGTH = {"kind": "length", "variant": "minmax"}


def alarms(**terms: Any) -> Alarms:
    return Alarms(GRPO(method="grpo", rewards=terms or {"accuracy": 1.0, "format": 1.0}).rewards)


def heard(watch: Alarms, stream: list[dict[str, float]], start: int = 1) -> list[Alarm]:
    return [alarm for step, metrics in enumerate(stream, start) for alarm in watch.take(step, metrics)]


def zero_spread(share: float, times: int) -> list[dict[str, float]]:
    return [{"train/frac_reward_zero_std": share}] * times


def test_groups_without_spread_are_told_once_an_episode() -> None:
    stream = zero_spread(0.9, 20) + zero_spread(0.1, 20) + zero_spread(1.0, 20)
    found = heard(alarms(), stream)
    assert [(alarm.name, alarm.step) for alarm in found] == [("no-spread", 5), ("no-spread", 44)]
    assert found[0].sentence == "90% of the groups got the same reward throughout"


def test_a_value_that_wavers_about_its_limit_is_one_episode() -> None:
    wavering = (zero_spread(0.9, 7) + zero_spread(0.6, 2)) * 6
    assert len(heard(alarms(), wavering)) == 1
    assert heard(alarms(), zero_spread(0.75, 50)) == []


def evaluated(rewards: list[float], scores: list[float], spread: float = 1.0) -> list[dict[str, float]]:
    """Five logged rewards before each evaluation."""
    stream: list[dict[str, float]] = []
    for reward, score in zip(rewards, scores, strict=True):
        stream += [{"train/reward": reward, "train/reward_std": spread}] * 5
        stream.append({"validation/target/jigsaw/score": score, "target/jigsaw/score": 0.9, "prior/mean/accuracy": 0.9})
    return stream


@pytest.mark.parametrize(
    ("rewards", "scores", "expected"),
    [
        ([1.0, 1.2, 1.5], [0.4, 0.41, 0.4], 1),
        ([1.0, 1.2, 1.5], [0.4, 0.45, 0.5], 0),
        ([1.0, 1.1, 1.2], [0.4, 0.4, 0.4], 0),
        ([1.0, 0.9, 0.5], [0.4, 0.3, 0.2], 0),
        ([1.0, 1.5], [0.4, 0.3], 0),
    ],
)
def test_a_reward_that_rises_without_the_evaluated_score_is_told(
    rewards: list[float], scores: list[float], expected: int
) -> None:
    found = heard(alarms(), evaluated(rewards, scores))
    assert [alarm.name for alarm in found] == ["reward-without-skill"] * expected


def test_the_sentence_of_a_drift_names_both_ways() -> None:
    (found,) = heard(alarms(), evaluated([1.0, 1.2, 1.5], [0.4, 0.41, 0.39]))
    assert found == Alarm(
        "reward-without-skill",
        18,
        "over 2 evaluations the reward rose from 1.00 to 1.50, the validation score went from 0.40 to 0.39",
    )


def parts(form: float, task: float) -> dict[str, float]:
    return {"train/rewards/format/mean": form, "train/rewards/accuracy/mean": task}


@pytest.mark.parametrize(
    ("now", "expected"), [(parts(0.9, 0.1), 1), (parts(0.9, 0.3), 0), (parts(0.4, 0.1), 0), (parts(0.2, 0.0), 0)]
)
def test_form_that_is_learned_alone_is_told(now: dict[str, float], expected: int) -> None:
    stream = [parts(0.3, 0.1)] * EARLY + [now] * EARLY
    assert [alarm.name for alarm in heard(alarms(), stream)] == ["format-only"] * expected
    assert heard(alarms(score=1.0), stream) == []


def test_lengths_that_run_away_and_completions_that_are_cut_off_are_told() -> None:
    lengths = [{"train/completions/mean_length": value} for value in [20.0] * RECENT + [30.0] * 10 + [60.0] * RECENT]
    (found,) = heard(alarms(), lengths)
    assert found.name == "length"
    assert found.sentence.startswith("completions grew from 20 to ")
    clipped = [{"train/completions/clipped_ratio": value} for value in [0.1] * 10 + [0.7] * RECENT]
    assert [alarm.name for alarm in heard(alarms(), clipped)] == ["clipped"]


def test_groups_that_learn_from_length_alone_are_told() -> None:
    found = heard(alarms(score=1.0, longer=LENGTH), [{"train/groups/length_only": 0.6}] * 9)
    assert [(alarm.name, alarm.step) for alarm in found] == [("length-only", RECENT)]


def test_nothing_is_told_while_terms_warm_up() -> None:
    watch = alarms(score=1.0, longer={**LENGTH, "warm_up": 30})
    assert [alarm.step for alarm in heard(watch, zero_spread(1.0, 50))] == [35]


@given(st.lists(st.floats(0, 1) | st.just(float("nan")), max_size=60), st.integers(0, 60))
def test_a_stream_that_is_taken_up_again_goes_on_as_if_it_had_never_stopped(values: list[float], cut: int) -> None:
    stream = [{"train/frac_reward_zero_std": value, "train/completions/mean_length": 90 * value} for value in values]
    whole = heard(alarms(), stream)
    resumed = alarms()
    before = heard(resumed, stream[:cut])
    assert before + heard(resumed, stream[cut:], start=1 + cut) == whole
