import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.analysis.frontier import Place, at_score, common_score, matched_scores, pareto


def walk(arm, *places):
    """(score, retention) pairs, 100 steps apart; forgetting is what retention lacks."""
    return [Place(arm, 100 * i, score, kept, 1 - kept) for i, (score, kept) in enumerate(places)]


def test_retention_between_two_evaluations_is_interpolated():
    found = at_score(walk("a", (0.2, 1.0), (0.6, 0.8)), 0.3)
    assert found == pytest.approx((25.0, 0.3, 0.95, 0.05))


def test_a_score_that_was_measured_is_taken_as_it_is():
    found = at_score(walk("a", (0.2, 1.0), (0.6, 0.8), (0.7, 0.1)), 0.6)
    assert (found.step, found.retention) == pytest.approx((100, 0.8))


def test_the_first_crossing_counts_when_an_arm_falls_back():
    found = at_score(walk("a", (0.2, 1.0), (0.5, 0.9), (0.3, 0.6), (0.5, 0.2)), 0.5)
    assert found.retention == pytest.approx(0.9)


def test_nothing_is_extrapolated():
    assert at_score(walk("a", (0.2, 1.0), (0.6, 0.8)), 0.61) is None


def test_arms_are_compared_at_the_best_score_of_the_least_skilled_and_at_tenths_above():
    arms = [walk("a", (0.25, 1.0), (0.437, 0.9), (0.4, 0.8)), walk("b", (0.25, 1.0), (0.72, 0.5))]
    assert common_score(arms) == 0.43
    assert matched_scores(arms) == [0.43, 0.5, 0.6, 0.7]


def test_an_arm_that_never_rises_leaves_no_common_score():
    arms = [walk("a", (0.25, 1.0), (0.2, 0.9)), walk("b", (0.25, 1.0), (0.52, 0.5))]
    assert common_score(arms) is None
    assert matched_scores(arms) == [0.3, 0.4, 0.5]


def test_the_front_keeps_what_nothing_beats():
    places = [Place("a", 0, 0.2, 1.0, 0.0), Place("a", 1, 0.5, 0.9, 0.0), Place("b", 1, 0.4, 0.8, 0.0)]
    assert [(p.arm, p.step) for p in pareto(places)] == [("a", 0), ("a", 1)]


scores = st.floats(0, 1).map(lambda value: round(value, 2))


@given(st.lists(st.tuples(scores, scores), min_size=1, max_size=30))
def test_every_place_is_on_the_front_or_beaten(pairs):
    places = walk("a", *pairs)
    front = pareto(places)

    def beaten(place):
        return any(
            other.score >= place.score and other.retention >= place.retention and other[2:4] != place[2:4]
            for other in places
        )

    assert {p.step for p in front} == {p.step for p in places if not beaten(p)}


@given(st.lists(st.tuples(scores, scores), min_size=2, max_size=10))
def test_every_arm_reaches_the_common_score(pairs):
    arms = [walk("a", *pairs), walk("b", pairs[0], *pairs[::-1])]
    common = common_score(arms)
    if common is not None:
        assert all(at_score(arm, common) is not None for arm in arms)


def test_a_mean_a_hair_below_two_decimals_is_still_reached_by_its_arm():
    arms = [walk("a", (0.25, 1.0), (0.85 - 1e-12, 0.9)), walk("b", (0.25, 1.0), (0.9, 0.5))]
    common = common_score(arms)
    assert common == pytest.approx(0.85)
    assert all(at_score(arm, common) for arm in arms)
