"""Numbers as people and models write them: one is read with its sign, thousands and decimals; two are none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.benchmarks.catalog import grade
from holdfast.benchmarks.grading.numbers import the_number
from holdfast.benchmarks.grading.text import normal


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("−5", -5),
        ("- 5", -5),
        ("minus 5", -5),
        ("-$5", -5),
        ("$-5", -5),
        ("–5", -5),
        ("COVID-19", None),
        ("A4", None),
        ("3,14", 3.14),
        ("1 234", 1234),
        ("1'234", 1234),
        ("1,234", 1234),
        ("1\u202f234", 1234),
        ("1\xa0234", 1234),
        ("1\u2009234", 1234),
        ("1’234", 1234),
        ("5 m2", 5),
        ("5 m²", 5),
        ("5m", 5),
        ("20%", 20),
        ("５", 5),
        ("3 or 4", None),
        ("1.234.567", 1234567),
        ("10²", None),
        ("5 million", 5000000.0),
        ("3D", None),
        ("10:30", None),
        ("There are 3 apples.", 3),
        ("5 ± 2", None),
        ("1/2", None),
        ("−$5", -5),
        ("- $5", -5),
        ("-$ 5", -5),
        ("US$5", 5),
        ("-US$5", -5),
        ("The answer is -5.", -5),
        ("The answer is - 5", -5),
        ("x - 5", None),
        ("Answer: -5", -5),
        ("x=-5", -5),
        ("3-4", None),
        ("3 - 4", None),
        ("3–4", None),
        ("(-5)", -5),
        ("+5", 5),
        ("--5", None),
        ("±5", None),
        ("+-5", None),
        ("½", None),
        ("5½", None),
        ("①②", None),
        ("⑦", 7),
        ("three", None),
        ("three or 4", None),
        ("two people, so 2", 2),
        ("one of the 5", 5),
        ("5 below zero", None),
        ("minus five", None),
        (".5", 0.5),
        ("-.5", -0.5),
        ("No.5", None),
        ("...5", 5),
        ("1e3", 1000),
        ("1.5E-4", 0.00015),
        ("1e999", None),
        ("1,23", 1.23),
        ("0,5", 0.5),
        ("0,123", 0.123),
        ("1,234.5", 1234.5),
        ("1.234,5", 1234.5),
        ("1.234", 1.234),
        ("12,34,567", 1234567),
        ("1,2,3", None),
        ("1.2.3", None),
        ("5.", 5),
        ("5,", 5),
        ("1 234,56", 1234.56),
        ("100 200", 100200),
        ("2020 150", None),
        ("3 3", 3),
        ("5k", None),
        ("5K", None),
        ("2nd", None),
        ("640x480", None),
        ("5-year-old", 5),
        ("1990-2000", None),
        ("有3个苹果", 3),
        ("5米", 5),
        ("5万", 50000),
        ("负5", -5),
        ("零下5度", -5),
        ("$1,234.50", 1234.5),
        ("1,234 m", 1234),
        ("about 1,234 m", 1234),
        ("-2.50", -2.5),
        ("not 5", None),
        ("It is not 5", None),
        ("５，０００", 5000),
        ("−５", -5),
        ("−1,234", -1234),
        ("5 km/h", 5),
        ("5km/h", 5),
        ("5 m^2", 5),
        ("m2 5", 5),
        ("10^2", None),
        ("20 %", 20),
        ("5 €", 5),
        ("€5", 5),
        ("$5$", 5),
        ("\\boxed{-5}", -5),
        ("**5**", 5),
        ("5°C", 5),
        ("-5°C", -5),
        ("−5 °C", -5),
        ("2:30", None),
        ("5!", 5),
        ("x5", None),
        ("negative 5", -5),
        ("Minus $5", -5),
        ("minus -5", None),
        ("5 - 3", None),
        ("5 -3", None),
        ("1_000", None),
        ("- 5 apples", -5),
        ("\n- 5", -5),
        ("5 dozen", 60),
        ("2.5 million", 2500000.0),
        ("007", 7),
        ("5'11", None),
        ("1'234'567.89", 1234567.89),
        ("1234,567", 1234.567),
        ("4,000,000", 4000000.0),
        ("-0", 0),
        ("5\u200b", 5),
        ("iPhone-5", None),
        ("F-16", None),
        ("5 (five)", 5),
        ("5 (six)", None),
        ("Antwort: 3,5 kg", 3.5),
        ("－5", -5),
        ("﹣5", -5),
        ("‒5", -5),
        ("−−5", None),
        ("3개", 3),
        ("5-5", None),
        ("is 5, not 6", None),
        ("10³", None),
        ("Level 3.", 3),
        ("3)", 3),
        ("(3)", 3),
        ("[3]", 3),
        ("≈3", 3),
        ("~3", 3),
        ("$-1,234.50", -1234.5),
        ("-€1.234,50", -1234.5),
        ("5,5,", 5.5),
        ("COVID-19: 5", 5),
        ("１２３", 123),
        ("٣", None),
        ("12 345 678", 12345678),
        ("5 m3", 5),
        ("5m2", 5),
        ("5m²", 5),
        ("H2O", None),
        ("CO2", None),
        ("3 cm", 3),
        ("5 ft 3 in", None),
        ("1st", None),
        ("3.14159", 3.14159),
        ("3.0", 3),
        ("-5%", -5),
        ("1,000,00", None),
        ("The temperature is −5 °C", -5),
        ("−5 or 5", None),
        ("= - 5", -5),
        ("5.0 5", 5),
    ],
)
def test_a_text_states_one_number_or_none(text: str, expected: float | None) -> None:
    found = the_number(normal(text))
    assert found == (None if expected is None else pytest.approx(expected))


@given(st.integers(-(10**9), 10**9), st.sampled_from(["", ",", "'", " ", "\u00a0", "\u202f", "\u2009", "’"]))
def test_thousands_may_be_grouped(value: int, mark: str) -> None:
    grouped = f"{value:,}".replace(",", mark)
    for text in (grouped, f"It is {grouped} m.", f"**{grouped}**", grouped.replace("-", "−")):
        assert the_number(normal(text)) == value


@given(st.integers(-999, 999), st.integers(-999, 999), st.sampled_from([" or ", ", ", "; ", " and ", " / ", "\n"]))
def test_two_numbers_that_differ_are_never_paid(one: int, other: int, between: str) -> None:
    if one != other:
        assert grade("number", f"<answer> {one}{between}{other} </answer>", str(one)).score == 0.0


@given(
    st.integers(1, 999),
    st.sampled_from(["-{}", "−{}", "– {}", "- {}", "minus {}", "-${}", "$-{}", "negative {}", "－{}"]),
)
def test_a_sign_is_never_lost(value: int, form: str) -> None:
    text = f"<answer> {form.format(value)} </answer>"
    assert grade("number", text, f"-{value}").correct
    assert not grade("number", text, str(value)).correct


def test_what_was_read_is_shown_in_full() -> None:
    assert grade("number", "<answer> 1,234,567.25 </answer>", "1234567.25") == ("1234567.25", True, 1.0)
