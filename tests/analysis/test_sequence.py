"""Measures of continual learning: by hand, by their properties, and as Avalanche's own classes give them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sequences import sequence_study
from synthetic_studies import compare_job

from holdfast.analysis.sequence import weights
from holdfast.analysis.study import Analysis, analyse
from holdfast.analysis.summary import summary

RECORDED = json.loads(Path(__file__).with_name("avalanche.json").read_text())
"""Written by bench/peers/avalanche_sequence.py with avalanche-lib 0.6.0."""
BY_HAND = np.array([[0.1, 0.2, 0.3], [0.8, 0.3, 0.1], [0.5, 0.9, 0.4], [0.6, 0.4, 0.7]])


def values(matrix: np.ndarray, learned: list[int]) -> dict[str, float]:
    return {name: float((own * matrix).sum()) for name, own in weights(matrix, learned).items()}


def test_a_matrix_of_three_tasks_worked_by_hand() -> None:
    assert values(BY_HAND, [1, 2, 3]) == pytest.approx(
        {
            "MFT": (0.8 + 0.9 + 0.7) / 3,
            "MFN": (0.6 + 0.4 + 0.7) / 3,
            "MAA": (0.8 + (0.5 + 0.9) / 2 + (0.6 + 0.4 + 0.7) / 3) / 3,
            "BWT": ((0.6 - 0.8) + (0.4 - 0.9)) / 2,
            "max forgetting": ((0.8 - 0.6) + (0.9 - 0.4)) / 2,
            "forgetting": ((0.8 - 0.6) + (0.9 - 0.4)) / 2,
            "FWT": ((0.3 - 0.2) + (0.4 - 0.3)) / 2,
            "FM": ((0.6 - 0.8) + (0.4 - 0.9) + 0) / 3,
        }
    )


def test_the_best_row_counts_for_chaudhry_and_lai_even_before_a_task_was_learned() -> None:
    found = values(np.array([[0.0, 0.0], [0.5, 0.9], [0.6, 0.4]]), [1, 2])
    assert found["max forgetting"] == pytest.approx(0.5 - 0.6)
    assert found["FM"] == pytest.approx((0 + (0.4 - 0.9)) / 2)


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda one: f"{len(one['matrix'])} rows")
def test_avalanche_gives_the_same(recorded: dict) -> None:
    matrix = np.array(recorded["matrix"])
    found = values(matrix, list(range(1, len(matrix))))
    ours = found["forgetting"], found["BWT"], found["FWT"]
    assert ours == pytest.approx(tuple(recorded[f"Stream{name}"] for name in ("Forgetting", "BWT", "ForwardTransfer")))


@given(st.integers(2, 6).flatmap(lambda n: arrays(float, (n + 1, n), elements=st.floats(0, 1))))
def test_definitions_keep_their_relations(matrix: np.ndarray) -> None:
    tasks = matrix.shape[1]
    found = values(matrix, list(range(1, tasks + 1)))
    close = pytest.approx
    assert found["BWT"] == close(-found["forgetting"], abs=1e-9)
    assert found["MFN"] - found["MFT"] == close(found["BWT"] * (tasks - 1) / tasks, abs=1e-9)
    assert found["max forgetting"] >= found["forgetting"] - 1e-9
    assert found["FM"] <= 1e-9
    order = np.random.default_rng(tasks).permutation(tasks)
    assert values(matrix[:, order], (order + 1).tolist()) == close(found, abs=1e-9)


def test_one_task_is_neither_forgotten_nor_transferred() -> None:
    assert set(values(np.array([[0.1], [0.7]]), [1])) == {"MFT", "MFN", "MAA", "FM"}


HELD = [[[0.1, 0.2, 0.9], [0.8, 0.2, 0.8], [0.6, 0.7, 0.7 + r / 20]] for r in range(3)]
LOST = [[[0.1, 0.2, 0.9], [0.8, 0.2, 0.6], [0.1 + r / 20, 0.7, 0.3]] for r in range(3)]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    root = tmp_path_factory.mktemp("sequence")
    return analyse(compare_job(sequence_study(root, {"held": HELD, "lost": LOST})))


def test_the_matrix_is_kept_whole_for_every_replicate(found: Analysis) -> None:
    ends = found.courses[found.courses.ends].set_index(["arm", "replicate", "stage", "learned", "benchmark"])
    for arm, matrices in (("held", HELD), ("lost", LOST)):
        for number, matrix in enumerate(matrices, 1):
            places = [(0, ""), (0, "counting"), (1, "jigsaw")]
            for place, row in zip(places, matrix, strict=True):
                own = [ends.loc[(arm, str(number), *place, name), "score"] for name in ("counting", "jigsaw", "color")]
                assert own == pytest.approx(row)
    # The same cells can be read off the one table of records.
    records = found.tables.records
    end = records[(records.arm == "lost") & (records.stage == 1) & (records.replicate == 3)]
    assert end[end.benchmark == "counting"].score.mean() == pytest.approx(0.2)


def test_measures_have_intervals_over_replicates(found: Analysis) -> None:
    rows = found.continual.set_index(["arm", "measure"])
    bwt = rows.loc[("lost", "BWT")]
    assert bwt.value == pytest.approx(np.mean([0.1, 0.15, 0.2]) - 0.8)
    assert bwt.low < bwt.value < bwt.high
    assert (bwt.replicates, bwt.covers) == (3, "questions and replicates")
    assert rows.loc[("held", "FWT")].value == pytest.approx(0)


def test_the_targets_mean_is_the_skill_and_priors_alone_are_retained(found: Analysis) -> None:
    lost = found.arms.set_index("arm").loc["lost"]
    assert lost.score == pytest.approx((0.15 + 0.7) / 2)
    assert lost.retention == pytest.approx(0.3 / 0.9)
    told = summary(found)["sequence"]["lost"]
    assert len(told["matrix"]) == 9
    assert {row["measure"] for row in told["measures"]} >= {"MFT", "MFN", "MAA", "BWT", "FWT", "FM"}


def test_stages_that_follow_each_other_on_one_target_are_one_row(tmp_path: Path) -> None:
    rows = [[0.1, 0.2, 0.9], [0.5, 0.2, 0.9], [0.6, 0.8, 0.9]]
    study = sequence_study(tmp_path, {"one": [rows] * 3})
    arms = {"one": tuple(stage.model_copy(update={"target": "jigsaw"}) for stage in study.study.arms["one"])}
    made = study.model_copy(update={"study": study.study.model_copy(update={"arms": arms})})
    own = analyse(compare_job(made)).continual.set_index("measure").value
    assert own["MFT"] == own["MFN"] == pytest.approx(0.8)


def test_another_order_is_another_first_target(tmp_path: Path) -> None:
    rows = [[0.1, 0.2, 0.9], [0.3, 0.8, 0.9], [0.7, 0.4, 0.9]]
    study = sequence_study(tmp_path, {"one": [rows] * 3}, order=("jigsaw", "counting"))
    own = analyse(compare_job(study))
    assert own.continual.set_index("measure").value["BWT"] == pytest.approx(0.4 - 0.8)
    assert own.courses[own.courses.ends & (own.courses.stage == 1)].learned.unique().tolist() == ["counting"]
