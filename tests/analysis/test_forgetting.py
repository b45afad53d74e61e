import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.analysis.forgetting import (
    FrontierPoint,
    at_score,
    common_score,
    count_forgotten,
    flips,
    matched_scores,
    pareto,
)
from holdfast.analysis.records import Graded


def graded(number, right, readable=True, role="prior"):
    parsed = "red" if readable else None
    return Graded("color", role, str(number), "i", "?", "text", parsed, "red", right and readable, float(right))


def test_losses_are_split_into_wrong_and_unreadable():
    base = [graded(0, True), graded(1, True), graded(2, True), graded(3, False), graded(4, False)]
    now = [graded(0, True), graded(1, False), graded(2, False, readable=False), graded(3, True), graded(4, False)]
    entry = count_forgotten(base, now)["color"]
    assert entry == (5, 3, 1, 1, 1)
    assert entry.forgetting == pytest.approx(3 / 5 - 2 / 5)
    assert [flip.before.id for flip in flips(base, now)] == ["1", "2"]


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1))
def test_lost_less_gained_is_the_difference_of_accuracies(facts):
    base = [graded(i, before) for i, (before, _, _) in enumerate(facts)]
    now = [graded(i, after, readable) for i, (_, after, readable) in enumerate(facts)]
    difference = sum(row.correct for row in base) - sum(row.correct for row in now)
    assert count_forgotten(base, now)["color"].forgetting == pytest.approx(difference / len(facts))


def test_the_target_is_not_knowledge_that_can_be_lost():
    base, now = [graded(0, True, role="target")], [graded(0, False, role="target")]
    assert count_forgotten(base, now) == {}
    assert flips(base, now) == []


def test_evaluations_of_different_questions_cannot_be_paired():
    with pytest.raises(ValueError, match="different questions"):
        count_forgotten([graded(0, True)], [graded(1, True)])


def trajectory(arm, *points):
    """(score, retention) pairs, 100 steps apart; forgetting is what retention lacks."""
    return [FrontierPoint(arm, 100 * i, score, kept, 1 - kept) for i, (score, kept) in enumerate(points)]


def test_retention_between_two_evaluations_is_interpolated():
    found = at_score(trajectory("a", (0.2, 1.0), (0.6, 0.8)), 0.3)
    assert found == pytest.approx((25.0, 0.3, 0.95, 0.05))


def test_a_score_that_was_measured_is_taken_as_it_is():
    found = at_score(trajectory("a", (0.2, 1.0), (0.6, 0.8), (0.7, 0.1)), 0.6)
    assert (found.step, found.retention) == pytest.approx((100, 0.8))


def test_the_first_crossing_counts_when_an_arm_falls_back():
    found = at_score(trajectory("a", (0.2, 1.0), (0.5, 0.9), (0.3, 0.6), (0.5, 0.2)), 0.5)
    assert found.retention == pytest.approx(0.9)


def test_nothing_is_extrapolated():
    assert at_score(trajectory("a", (0.2, 1.0), (0.6, 0.8)), 0.61) is None


def test_arms_are_compared_at_the_best_score_of_the_least_skilled_and_at_tenths_above():
    arms = [trajectory("a", (0.25, 1.0), (0.437, 0.9), (0.4, 0.8)), trajectory("b", (0.25, 1.0), (0.72, 0.5))]
    assert common_score(arms) == 0.43
    assert matched_scores(arms) == [0.43, 0.5, 0.6, 0.7]


def test_an_arm_that_never_rises_leaves_no_common_score():
    arms = [trajectory("a", (0.25, 1.0), (0.2, 0.9)), trajectory("b", (0.25, 1.0), (0.52, 0.5))]
    assert common_score(arms) is None
    assert matched_scores(arms) == [0.3, 0.4, 0.5]


def test_the_front_keeps_what_nothing_beats():
    points = [
        FrontierPoint("a", 0, 0.2, 1.0, 0.0),
        FrontierPoint("a", 1, 0.5, 0.9, 0.0),
        FrontierPoint("b", 1, 0.4, 0.8, 0.0),
    ]
    assert [(p.arm, p.step) for p in pareto(points)] == [("a", 0), ("a", 1)]


scores = st.floats(0, 1).map(lambda value: round(value, 2))


@given(st.lists(st.tuples(scores, scores), min_size=1, max_size=30))
def test_every_place_is_on_the_front_or_beaten(pairs):
    points = trajectory("a", *pairs)
    front = pareto(points)

    def beaten(place):
        return any(
            other.score >= place.score and other.retention >= place.retention and other[2:4] != place[2:4]
            for other in points
        )

    assert {p.step for p in front} == {p.step for p in points if not beaten(p)}


@given(st.lists(st.tuples(scores, scores), min_size=2, max_size=10))
def test_every_arm_reaches_the_common_score(pairs):
    arms = [trajectory("a", *pairs), trajectory("b", pairs[0], *pairs[::-1])]
    common = common_score(arms)
    if common is not None:
        assert all(at_score(arm, common) is not None for arm in arms)


def test_a_mean_a_hair_below_two_decimals_is_still_reached_by_its_arm():
    arms = [trajectory("a", (0.25, 1.0), (0.85 - 1e-12, 0.9)), trajectory("b", (0.25, 1.0), (0.9, 0.5))]
    common = common_score(arms)
    assert common == pytest.approx(0.85)
    assert all(at_score(arm, common) for arm in arms)
