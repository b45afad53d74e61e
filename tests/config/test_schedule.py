"""When checkpoints are kept, and which of them are evaluated, against schedules worked by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.config.schedule import When, chosen, scheduled


@pytest.mark.parametrize(
    ("when", "steps", "period", "expected"),
    [
        (0.25, 400, 1, [100, 200, 300, 400]),
        (0.25, 10, 1, [3, 5, 8, 10]),
        (100, 250, 1, [100, 200, 250]),
        (0.5, 6, 4, [4, 6]),
        (1000, 6, 1, [6]),
        (0.1, 3, 1, [1, 2, 3]),
        (1, 4, 1, [1, 2, 3, 4]),
        ("log", 400, 1, [50, 100, 200, 400]),
        ("log", 100, 1, [13, 25, 50, 100]),
        # Between the generations of a training of twelve steps an eighth, 1.5, and a quarter fall together.
        ("log", 12, 4, [4, 8, 12]),
        ("log", 3, 1, [1, 2, 3]),
        ("log", 1, 1, [1]),
    ],
)
def test_a_schedule_names_its_steps_and_the_end(when: When, steps: int, period: int, expected: list[int]) -> None:
    assert scheduled(when, steps, period) == expected


@given(st.one_of(st.floats(0.01, 50), st.just("log")), st.integers(1, 60), st.integers(1, 5))
def test_every_scheduled_step_but_the_last_can_be_resumed_from(when: When, steps: int, period: int) -> None:
    found = scheduled(when, steps, period)
    assert found[-1] == steps
    assert found == sorted(set(found))
    assert all(step % period == 0 and 0 < step < steps for step in found[:-1])


@pytest.mark.parametrize(
    ("when", "kept", "expected"),
    [
        ("log", [50, 100, 200, 400], [50, 100, 200, 400]),
        # Of every tenth: the eighth, 50, lies between 40 and 80 and nearer to 40; the quarter, 100, between 80 and 120.
        ("log", [40, 80, 120, 160, 200, 240, 280, 320, 360, 400], [40, 120, 200, 400]),
        ("log", [400], [400]),
        ("log", [300, 400], [300, 400]),
        (0.5, [50, 100, 200, 400], [200, 400]),
        (1, [13, 25, 50, 100], [13, 25, 50, 100]),
        (1000, [13, 25, 50, 100], [100]),
    ],
)
def test_of_what_was_kept_the_nearest_to_the_schedule_is_taken(
    when: When, kept: list[int], expected: list[int]
) -> None:
    assert chosen(when, kept) == expected


@given(
    st.one_of(st.floats(0.01, 50), st.just("log")),
    st.sets(st.integers(1, 60), min_size=1).map(sorted),
)
def test_only_what_was_kept_is_taken_and_the_last_always(when: When, kept: list[int]) -> None:
    found = chosen(when, kept)
    assert set(found) <= set(kept)
    assert found == sorted(set(found))
    assert found[-1] == kept[-1]


@given(st.one_of(st.floats(0.01, 50), st.just("log")), st.integers(1, 60))
def test_what_is_kept_by_a_schedule_is_taken_by_the_same_one(when: When, steps: int) -> None:
    assert chosen(when, scheduled(when, steps)) == scheduled(when, steps)
