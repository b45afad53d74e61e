from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from holdfast.report.charts import Frame, Level, axes, horizontal, short, spread, svg, text, ticks


def test_ticks_are_round_and_inside():
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert ticks(0.23, 0.71) == [0.3, 0.4, 0.5, 0.6, 0.7]


@given(st.floats(-5, 5), st.floats(0.01, 10))
def test_there_are_always_a_few_ticks(low, width):
    found = ticks(low, low + width)
    assert 2 <= len(found) <= 8
    assert all(low - 1e-6 <= tick <= low + width + 1e-6 for tick in found)


@given(st.lists(st.floats(0, 300), min_size=1, max_size=12))
def test_labels_are_moved_apart_and_keep_their_order(heights):
    moved = spread(heights, 15, 10, 300)
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    gaps = [moved[b] - moved[a] for a, b in pairwise(order)]
    assert all(gap >= 15 - 1e-6 for gap in gaps)


def test_text_in_a_chart_is_escaped():
    drawn = svg(Frame(), [text(0, 0, "<script>")], 'a "title" <b>')
    assert "<script>" not in drawn
    assert "<b>" not in drawn


def test_an_unknown_level_draws_nothing():
    frame = Frame()
    x, y = frame.scales((0, 1), (0, 1))
    assert horizontal(frame, y, Level(None, "chance")) == ""
    assert axes(frame, x, y, ("x", "y")).count('class="grid"') == 6


def test_long_names_keep_the_end_that_tells_them_apart():
    assert short("answers") == "answers"
    assert short("a-long-prefix-lr-3e-5").endswith("3e-5")
    assert len(short("a-long-prefix-lr-3e-5")) <= 12
