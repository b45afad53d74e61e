import math

from holdfast.analysis.reproduction import Difference, differences


def arm(value: float | None, low: float | None = None, high: float | None = None) -> dict:
    return {"metrics": {"retention": value}, "intervals": {"retention": {"value": value, "low": low, "high": high}}}


def verdict(recorded: dict, again: dict) -> list[bool]:
    return [one.within for one in differences({"arms": {"a": recorded}}, {"arms": {"a": again}})]


def test_a_value_is_within_its_interval_ends_included():
    for value, is_within in ((0.7, True), (0.75, True), (0.9, True), (0.91, False), (0.69, False), (None, False)):
        assert verdict(arm(0.8, 0.7, 0.9), arm(value)) == [is_within], value


def test_without_an_interval_only_the_same_value_is_within():
    assert verdict(arm(0.8), arm(0.8)) == [True]
    assert verdict(arm(0.8), arm(0.8 + 1e-7)) == [True]
    assert verdict(arm(0.8), arm(0.81)) == [False]
    assert verdict(arm(None), arm(None)) == [True]


def test_a_metric_or_an_arm_that_one_side_lacks_counts():
    found = differences({"base": arm(1.0), "arms": {"a": arm(0.8, 0, 1)}}, {"base": arm(1.0), "arms": {"b": arm(0.8)}})
    assert [(one.arm, one.within) for one in found] == [("base", True), ("a", False), ("b", False)]


def test_a_difference_is_new_minus_recorded():
    assert Difference("a", "m", 0.5, None, None, 0.75).difference == 0.25
    assert math.isnan(Difference("a", "m", None, None, None, 0.75).difference)
