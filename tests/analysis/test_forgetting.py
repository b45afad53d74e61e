"""Forgetting, retention and pass@k against numbers worked by hand."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.analysis.forgetting import forgetting, pass_at
from holdfast.evaluation.records import Record, measured, metrics

BASE = {
    "prior/color/accuracy": 0.9,
    "prior/count/accuracy": 0.7,
    "prior/mean/accuracy": 0.8,
    "target/jigsaw/accuracy": 0,
}
NOW = {"prior/color/accuracy": 0.6, "prior/count/accuracy": 0.8, "prior/mean/accuracy": 0.7, "prior/color/logprob": -1}


def test_forgetting_is_what_was_lost_and_retention_what_is_left() -> None:
    assert forgetting(BASE, NOW) == pytest.approx(
        {"forgetting/color": 0.3, "forgetting/count": -0.1, "forgetting/mean": 0.1, "retention": 0.875}
    )


def test_the_base_has_forgotten_nothing() -> None:
    assert set(forgetting(BASE, BASE).values()) == {0.0, 1.0}


def test_retention_of_a_base_that_knew_nothing_is_not_a_number_and_left_out() -> None:
    nothing = {"prior/color/accuracy": 0.0, "prior/mean/accuracy": 0.0}
    assert forgetting(nothing, nothing) == {"forgetting/color": 0.0, "forgetting/mean": 0.0}


@given(st.integers(1, 7), st.data())
def test_pass_at_k_is_the_share_of_all_choices_that_hold_a_right_one(samples: int, data: st.DataObject) -> None:
    right, k = data.draw(st.integers(0, samples)), data.draw(st.integers(1, samples))
    verdicts = [index < right for index in range(samples)]
    choices = [any(choice) for choice in combinations(verdicts, k)]
    assert pass_at(k, samples, right) == pytest.approx(sum(choices) / len(choices))


def record(benchmark: str, role: str, parsed: str | None, score: float) -> Record:
    return Record(
        benchmark, role, "test", "id", "image", "ask", "say", parsed, "right", score == 1.0, score, -2 * score, 3
    )


def test_unparsed_counts_as_wrong_and_the_prior_mean_weighs_benchmarks_alike() -> None:
    rows = [
        record("jigsaw", "target", "a", 1.0),
        record("jigsaw", "target", None, 0.0),
        record("color", "prior", "a", 1.0),
        record("count", "prior", None, 0.0),
        record("count", "prior", "b", 0.5),
    ]
    assert metrics(rows) == {
        "target/jigsaw/accuracy": 0.5,
        "target/jigsaw/score": 0.5,
        "target/jigsaw/unparsed": 0.5,
        "prior/color/accuracy": 1.0,
        "prior/color/logprob": -2.0,
        "prior/color/unparsed": 0.0,
        "prior/count/accuracy": 0.0,
        "prior/count/logprob": -0.5,
        "prior/count/unparsed": 0.5,
        "prior/mean/accuracy": 0.5,
    }


def test_a_prior_benchmark_has_a_score_where_its_accuracy_is_soft() -> None:
    row = record("own", "prior", "a", 1.0)._replace(score=0.3, grader="vqa")
    assert metrics([row, row])["prior/own/score"] == pytest.approx(0.3)
    assert metrics([row, row])["prior/own/accuracy"] == 1.0


def test_answers_that_were_cut_off_and_lenient_scores_are_means_over_the_rows_that_know() -> None:
    row = record("jigsaw", "target", None, 0.0)
    known = [row._replace(cut=True, lenient=0.5), row._replace(cut=False, lenient=0.0), row]
    found = metrics([*known, record("color", "prior", "a", 1.0)])
    assert (found["target/jigsaw/cut"], found["target/jigsaw/lenient"]) == (0.5, 0.25)
    assert found["target/jigsaw/score"] == 0.0
    assert not {"prior/color/cut", "prior/color/lenient"} & found.keys()


def test_test_questions_and_validation_questions_have_metrics_of_their_own() -> None:
    right, wrong = record("color", "prior", "a", 1.0), record("color", "prior", "b", 0.0)
    found = measured([right, right, wrong._replace(split="validation")])
    assert (found["prior/color/accuracy"], found["validation/prior/color/accuracy"]) == (1.0, 0.0)
    assert found["prior/mean/accuracy"] == 1.0
    assert found["validation/prior/mean/accuracy"] == 0.0
