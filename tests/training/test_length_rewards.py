"""Length rewards by hand, and what holds for all of them: bounds, order, and independence of order and batch."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from holdfast.benchmarks.grading.answer import thought
from holdfast.config.rewards import LengthTerm
from holdfast.training.length_rewards import least, length_rewards

NAN = math.nan
BOUNDED = {"band": {"low": 3, "high": 8}, "cosine": {"high": 10}, "brevity": {"high": 10}}
VARIANTS = ("minmax", "kimi", "kimi-longer", "band", "zscore", "running-mean", "cosine", "brevity")


def term(variant: str, **fields: object) -> LengthTerm:
    return LengthTerm(kind="length", variant=variant, **{**BOUNDED.get(variant, {}), **fields})


def rewarded(variant: str, lengths: list[float], right: list[bool] | None = None, **fields: object) -> list[float]:
    judged = np.array([right if right is not None else [True] * len(lengths)])
    return length_rewards(term(variant, **fields), np.array([lengths], float), judged)[0].tolist()


@pytest.mark.parametrize(
    ("variant", "lengths", "expected"),
    [
        ("minmax", [2, 4, 6], [0, 0.5, 1]),
        ("minmax", [3, 3, 3], [0, 0, 0]),
        ("minmax", [2, NAN, 6], [0, 0, 1]),
        ("kimi", [2, 4, 6], [0.5, 0, -0.5]),
        ("kimi", [5, 5, 5], [0, 0, 0]),
        ("kimi", [2, NAN, 6], [0.5, -0.5, -0.5]),
        ("kimi-longer", [2, 4, 6], [-0.5, 0, 0.5]),
        ("band", [2, 3, 8, 9], [0, 1, 1, 0]),
        ("zscore", [4, 4, 4], [0.5, 0.5, 0.5]),
        ("zscore", [1, 3], [1 / (1 + math.e), math.e / (1 + math.e)]),
        ("running-mean", [1, 3, 8], [1 / 8, 3 / 8, 1]),
        ("cosine", [0, 5, 10, 11, NAN], [1, 0.75, 0.5, -1, -1]),
        ("brevity", [0, 5, 10, 99, NAN], [1, 0.5, 0, 0, 0]),
    ],
)
def test_a_variant_is_its_formula(variant: str, lengths: list[float], expected: list[float]) -> None:
    assert rewarded(variant, lengths) == pytest.approx(expected)


def test_wrong_answers_get_no_more_than_nothing_for_their_length() -> None:
    assert rewarded("kimi", [2, 4, 6], [False] * 3) == [0, 0, -0.5]
    assert rewarded("kimi-longer", [2, 4, 6], [False] * 3) == [-0.5, 0, 0]
    assert rewarded("cosine", [0, 5, 10], [False] * 3) == pytest.approx([-1, -0.5, 0])


def test_a_running_mean_that_is_given_counts_instead_of_the_batchs_own() -> None:
    rewards = length_rewards(term("running-mean"), np.array([[2.0, 4.0]]), np.array([[True, True]]), mean=8.0)
    assert rewards.tolist() == [[0.125, 0.25]]


GROUPS = st.lists(
    st.lists(
        st.tuples(st.one_of(st.just(NAN), st.integers(0, 10**7).map(float)), st.booleans()), min_size=4, max_size=4
    ),
    min_size=1,
    max_size=4,
)


@pytest.mark.parametrize("variant", VARIANTS)
@given(groups=GROUPS, shuffle=st.permutations(range(4)))
def test_rewards_are_bounded_ignore_order_and_other_groups(
    variant: str, groups: list[list[tuple[float, bool]]], shuffle: list[int]
) -> None:
    lengths = np.array([[length for length, _ in group] for group in groups])
    right = np.array([[verdict for _, verdict in group] for group in groups])
    mean = 7.0
    rewards = length_rewards(term(variant), lengths, right, mean)
    assert (rewards >= least(term(variant))).all()
    assert (rewards <= 1).all()
    assert (rewards[np.isnan(lengths)] == least(term(variant))).all()
    moved = length_rewards(term(variant), lengths[:, shuffle], right[:, shuffle], mean)
    np.testing.assert_allclose(moved, rewards[:, shuffle], atol=1e-9)
    alone = [length_rewards(term(variant), lengths[i : i + 1], right[i : i + 1], mean)[0] for i in range(len(groups))]
    assert np.array_equal(np.array(alone), rewards)


@pytest.mark.parametrize(
    ("variant", "sign"),
    [
        ("minmax", 1),
        ("kimi", -1),
        ("kimi-longer", 1),
        ("zscore", 1),
        ("running-mean", 1),
        ("cosine", -1),
        ("brevity", -1),
    ],
)
@given(lengths=st.lists(st.integers(0, 10**6), min_size=2, max_size=8))
def test_among_right_answers_a_longer_one_never_gets_less_or_never_more(
    variant: str, sign: int, lengths: list[int]
) -> None:
    rewards = rewarded(variant, [float(length) for length in sorted(lengths)])
    assert all(sign * (after - before) >= -1e-12 for before, after in itertools.pairwise(rewards))


@pytest.mark.parametrize("variant", ["kimi", "kimi-longer", "cosine"])
@given(length=st.integers(0, 30), other=st.integers(0, 30))
def test_of_two_of_one_length_the_right_one_gets_no_less(variant: str, length: int, other: int) -> None:
    right, wrong, _ = rewarded(variant, [length, length, other], [True, False, True])
    assert right >= wrong


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("<think> a b </think> <answer> 1 </answer>", " a b "),
        ("<think></think> 1", ""),
        ("<think> a b", None),
        ("a b", None),
        ("<think> a <think> b </think> </think>", None),
        ("<think> a </think> <think> b </think>", None),
        ("</think> a <think>", None),
        ("<think> <answer> 1 </answer> </think>", None),
    ],
)
def test_only_one_plain_pair_of_think_tags_holds_a_thought(text: str, found: str | None) -> None:
    assert thought(text) == found


@pytest.mark.parametrize(
    "fields",
    [
        {"variant": "band"},
        {"variant": "minmax", "high": 3},
        {"variant": "band", "low": 9, "high": 3},
        {"variant": "kimi", "gate": "correct"},
        {"variant": "minmax", "weight": -1.0},
        {"variant": "minmax", "right": (2.0, 1.0)},
    ],
)
def test_fields_that_a_variant_does_not_have_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        LengthTerm(kind="length", **fields)
