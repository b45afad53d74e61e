"""Detection: boxes read, matched greedily, scored over the larger of the two numbers."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.benchmarks.grading.box_overlap import grade_boxes, matched, overlap
from holdfast.benchmarks.grading.boxes import boxes, written
from holdfast.benchmarks.question import Annotation, Draw
from holdfast.benchmarks.targets import detection
from holdfast.config.targets import Detection
from holdfast.data.grid import SIZE
from holdfast.data.world import COLORS

ALL = Detection(benchmark="detection")
SIDES = st.integers(0, 16)
BOX = st.tuples(SIDES, SIDES, SIDES, SIDES).map(lambda box: tuple(float(side) for side in box))
CORNER, LENGTH = st.integers(0, 12), st.integers(1, 4)
REAL = st.tuples(CORNER, CORNER, LENGTH, LENGTH).map(
    lambda box: (float(box[0]), float(box[1]), float(box[0] + box[2]), float(box[1] + box[3]))
)
"""Boxes that have an area."""


def tagged(text: str) -> str:
    return f"<answer> {text} </answer>"


@given(st.lists(BOX, min_size=1, max_size=5), st.lists(REAL, min_size=1, max_size=5))
def test_a_score_is_a_share_and_no_order_of_boxes_changes_it(given_boxes, wanted) -> None:
    found = grade_boxes(tagged(written(given_boxes)), written(wanted))
    assert 0 <= found.score <= 1
    assert found.correct <= (found.score >= 0.5)
    for one, other in itertools.islice(
        itertools.product(itertools.permutations(given_boxes), itertools.permutations(wanted)), 40
    ):
        again = grade_boxes(tagged(written(list(one))), written(list(other)))
        assert again.score == pytest.approx(found.score, abs=1e-12)
        assert again.correct == found.correct


@given(st.lists(REAL, min_size=1, max_size=6))
def test_the_right_boxes_in_any_order_score_one(wanted) -> None:
    found = grade_boxes(tagged(written(wanted[::-1])), written(wanted))
    assert (found.correct, found.score) == (True, pytest.approx(1.0))
    assert found.score <= 1.0


@given(st.lists(REAL, min_size=1, max_size=4), REAL)
def test_one_box_too_many_costs_its_share(wanted, extra) -> None:
    found = grade_boxes(tagged(written([*wanted, extra])), written(wanted))
    assert found.score == pytest.approx(len(wanted) / (len(wanted) + 1))
    assert not found.correct


def test_matching_is_greedy_as_worked_by_hand() -> None:
    """Boxes 10 high. a meets y at 8/12 and x at 10/10; b meets y at 5/15 alone, so greedy gives x to a, y to b."""
    x, y = (0.0, 0.0, 10.0, 10.0), (2.0, 0.0, 12.0, 10.0)
    a, b = (0.0, 0.0, 10.0, 10.0), (7.0, 0.0, 17.0, 10.0)
    assert overlap(a, y) == pytest.approx(8 / 12)
    assert overlap(b, y) == pytest.approx(5 / 15)
    assert overlap(b, x) == pytest.approx(3 / 17)
    assert matched([b, a], [x, y]) == [1.0, pytest.approx(5 / 15)]
    found = grade_boxes(tagged(written([b, a])), written([x, y]))
    assert found.score == pytest.approx((1 + 5 / 15) / 2)
    assert not found.correct


def test_greedy_takes_the_largest_overlap_first_even_where_another_pairing_sums_to_more() -> None:
    """p meets u at 6/14 and v at 5/15, q meets u at 4/16 alone: greedy has 6/14 and 0, the best sum is 5/15 + 4/16."""
    u, v = (10.0, 0.0, 20.0, 1.0), (19.0, 0.0, 29.0, 1.0)
    p, q = (14.0, 0.0, 24.0, 1.0), (4.0, 0.0, 14.0, 1.0)
    assert matched([p, q], [u, v]) == [pytest.approx(6 / 14)]
    assert grade_boxes(tagged(written([p, q])), written([u, v])).score == pytest.approx(6 / 14 / 2)


def test_a_tie_is_decided_by_coordinates_whatever_the_order() -> None:
    """a meets u and v at 1/3 each, b meets u at 1/4 alone: were v taken first, b would be left with u."""
    u, v = (0.0, 0.0, 8.0, 1.0), (8.0, 0.0, 16.0, 1.0)
    a, b = (4.0, 0.0, 12.0, 1.0), (0.0, 0.0, 2.0, 1.0)
    for one, other in itertools.product(((a, b), (b, a)), ((u, v), (v, u))):
        assert matched(list(one), list(other)) == [pytest.approx(1 / 3)]


def test_no_box_is_matched_twice() -> None:
    box = (0.0, 0.0, 4.0, 4.0)
    assert grade_boxes(tagged(written([box, box])), written([box])).score == 0.5
    assert grade_boxes(tagged(written([box])), written([box, box])).score == 0.5


@pytest.mark.parametrize("text", ["1 2 5 6; 7 8 9 10", "[[1, 2, 5, 6], [7, 8, 9, 10]]", "(1,2,5,6),(7,8,9,10)"])
def test_several_ways_of_writing_boxes_are_read(text: str) -> None:
    assert boxes(text) == [(1, 2, 5, 6), (7, 8, 9, 10)]


@pytest.mark.parametrize("text", ["", "none", "1 2 3", "1 2 3 4 5", "-1 2 3 4", "nan 1 2 3", "1e9 2 3 4", "x 1 2 3 4"])
def test_other_text_holds_no_boxes(text: str) -> None:
    assert grade_boxes(tagged(text), "1 2 5 6").parsed is None


def test_a_box_without_an_area_is_read_and_worth_nothing() -> None:
    found = grade_boxes(tagged("5 6 5 6"), "1 2 5 6")
    assert (found.parsed, found.score) == ("5 6 5 6", 0.0)


@pytest.mark.parametrize("find", ["all", "one"])
def test_drawn_boxes_hold_what_is_asked_for(find: str) -> None:
    target = ALL.model_copy(update={"find": find, "raster": SIZE})
    for number in range(40):
        question = detection.ask(target, Draw(0, "train", number))
        wanted = boxes(question.answer) or []
        assert (len(wanted) == 1) or find == "all"
        for x1, y1, x2, y2 in wanted:
            color = question.images[0].getpixel((int(x1 + x2) // 2, int(y1 + 2 * y2) // 3))
            assert color in COLORS.values()
            if find == "one":
                assert next(name for name, value in COLORS.items() if value == color) in question.prompt


def test_a_box_never_vanishes_in_a_coarse_raster() -> None:
    tiny = Annotation(images=(), boxes=((0.999, 0.999, 1.0, 1.0), (0.5, 0.5, 0.501, 0.501)), categories=("dot", "dot"))
    question = detection.read(tiny, ALL, Draw(0, "train", 0))
    assert question is not None
    assert question.answer == "8 8 9 9; 15 15 16 16"


def test_an_expression_asks_for_its_one_box_and_a_category_for_all_of_its_boxes() -> None:
    box = (0.25, 0.25, 0.5, 0.5)
    one = detection.read(Annotation((), caption="man in blue", boxes=(box,)), ALL, Draw(0, "val", 0))
    assert one is not None
    assert one.prompt == "Where is man in blue? Give its box x1 y1 x2 y2 in 16ths of the image."
    row = Annotation((), boxes=(box,) * 10, categories=("crowd",) * 9 + ("dog",))
    many = detection.read(row, ALL, Draw(0, "val", 0))
    assert many is not None
    assert (many.group, many.answer) == ("dog", "4 4 8 8")
    assert detection.read(Annotation(()), ALL, Draw(0, "val", 0)) is None
