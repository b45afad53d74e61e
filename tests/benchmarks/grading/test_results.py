"""A worked solution's result is what follows its last `=`, without units; what offers two numbers has none."""

from __future__ import annotations

import time

import pytest

from holdfast.benchmarks.catalog import grade
from holdfast.benchmarks.grading.results import the_result
from holdfast.benchmarks.public import gsm8k

READ = [
    "18",
    "9 * 2 = 18",
    "3+15=18",
    "9 eggs * 2 dollars = 18 dollars.",
    "1,000 - 982 = 18",
    "x = 9 + 9 = 18",
    r"18 \text{ m}^2",
    r"18\,\mathrm{cm}^{3}",
    "18 m^2",
    r"\$18",
    r"18\%",
    r"18^\circ",
    r"\textbf{18}",
    r"\frac{36}{2} = 18 \text{ dozen}",
    r"\text{Total: } 18 \text{ dollars}",
]
UNREAD = [
    "3 or 18",
    "18 or 3",
    "x = 3 or x = 18",
    "3, x = 18",
    "3; 9 * 2 = 18",
    "3 != 18",
    "18 = 9 * 2",
    "9 * 2 =",
    r"3 \text{ or } 18",
    r"\frac{18}{18}",
    r"\sqrt{18}",
    r"18 \pm 1",
    r"\text{eighteen}",
]


@pytest.mark.parametrize("text", READ)
def test_the_result_is_read_in_a_box_and_in_tags(text: str) -> None:
    assert the_result(text) == 18
    assert grade("arithmetic", f"So \\boxed{{{text}}}, in 2 steps", "18").correct
    assert grade("arithmetic", f"<answer> {text} </answer>", "18").correct
    assert gsm8k.grade(f"So \\boxed{{{text}}}, in 2 steps", {"answer": "so #### 18"}).correct


@pytest.mark.parametrize("text", UNREAD)
def test_a_hedge_and_what_is_still_to_be_worked_out_are_not_paid(text: str) -> None:
    for completion in (f"So \\boxed{{{text}}}", f"<answer> {text} </answer>"):
        assert grade("arithmetic", completion, "18") == (None, False, 0.0)
    assert gsm8k.grade(f"So \\boxed{{{text}}}", {"answer": "so #### 18"}).parsed is None


def test_what_follows_the_last_equals_sign_was_said() -> None:
    assert the_result("18 = 18 = 19") == 19
    assert not grade("arithmetic", "<answer> 18 = 18 = 19 </answer>", "18").correct


@pytest.mark.parametrize(
    "text", ["\\text{" * 16_000, "\\boxed{1" * 10_000 + "}" * 10_000, "= " * 50_000, "^2" * 50_000]
)
def test_broken_results_take_no_time(text: str) -> None:
    started = time.process_time()
    the_result(text)
    assert time.process_time() - started < 2
