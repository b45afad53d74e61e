import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.analysis.forgotten import flips, ledger
from holdfast.analysis.records import Graded


def graded(number, right, readable=True, role="prior"):
    parsed = "red" if readable else None
    return Graded("color", role, str(number), "i", "?", "text", parsed, "red", right and readable, float(right))


def test_losses_are_split_into_wrong_and_unreadable():
    base = [graded(0, True), graded(1, True), graded(2, True), graded(3, False), graded(4, False)]
    now = [graded(0, True), graded(1, False), graded(2, False, readable=False), graded(3, True), graded(4, False)]
    entry = ledger(base, now)["color"]
    assert entry == (5, 3, 1, 1, 1)
    assert entry.forgetting == pytest.approx(3 / 5 - 2 / 5)
    assert [flip.before.id for flip in flips(base, now)] == ["1", "2"]


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1))
def test_lost_less_gained_is_the_difference_of_accuracies(facts):
    base = [graded(i, before) for i, (before, _, _) in enumerate(facts)]
    now = [graded(i, after, readable) for i, (_, after, readable) in enumerate(facts)]
    difference = sum(row.correct for row in base) - sum(row.correct for row in now)
    assert ledger(base, now)["color"].forgetting == pytest.approx(difference / len(facts))


def test_the_target_is_not_knowledge_that_can_be_lost():
    base, now = [graded(0, True, role="target")], [graded(0, False, role="target")]
    assert ledger(base, now) == {}
    assert flips(base, now) == []


def test_evaluations_of_different_questions_cannot_be_paired():
    with pytest.raises(ValueError, match="different questions"):
        ledger([graded(0, True)], [graded(1, True)])
