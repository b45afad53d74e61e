from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from synthetic_studies import Shape, Truth, compare_job, finished_study

from holdfast.analysis.influence import agreement
from holdfast.analysis.study import analyse

ARMS = {"rft": Truth(retention=0.9), "self": Truth(retention=0.7), "answers": Truth(retention=0.3)}


def test_sums_that_have_the_wrong_sign_are_contradicted(tmp_path: Path) -> None:
    found = analyse(compare_job(finished_study(tmp_path / "a", ARMS, Shape(traced=True)))).influence
    assert found is not None
    assert len(found.changes) == 3 * 3 * 4
    rows = found.agreement.set_index(["prediction", "against"])
    assert rows.pearson["trapezoid", "measured"] > 0.95
    assert not rows.contradicted["trapezoid", "forgetting"]
    assert rows.contradicted["tracin", "measured"]
    assert rows.points["trapezoid", "measured"] == 27
    own = found.changes[(found.changes.arm == "rft") & (found.changes.replicate == 1)].set_index("benchmark")
    assert own.trapezoid["color"] == pytest.approx(1.05 * own.measured["color"])


def test_measures_are_means_over_replicates(tmp_path: Path) -> None:
    found = analyse(compare_job(finished_study(tmp_path / "a", ARMS, Shape(traced=True)))).influence
    assert found is not None
    rows = found.measures.set_index(["arm", "benchmark", "measure", "step"])
    one = rows.loc["rft", "color", "tracin", 32]
    lost = found.changes.set_index(["arm", "benchmark"]).tracin["rft", "color"]
    assert one.value == pytest.approx(lost.mean())
    assert one.value_high - one.value == pytest.approx(stats.t.ppf(0.975, 2) * lost.std(ddof=1) / np.sqrt(3))
    assert (one.role, one.replicates) == ("prior", 3)


def test_a_study_that_traced_nothing_has_no_influence(tmp_path: Path) -> None:
    assert analyse(compare_job(finished_study(tmp_path / "a", ARMS, Shape()))).influence is None


def test_agreement_by_hand() -> None:
    pairs = np.array([[1.0, 2, 3, -1], [1.0, 2, 3, 1]])
    found = agreement(pairs, np.array([0, 1, 2, 2]))
    assert found["sign"] == 0.75
    assert found["pearson"] == pytest.approx(np.corrcoef(pairs)[0, 1])
    assert (found["points"], found["trainings"]) == (4, 3)
    assert agreement(-pairs * [[1], [-1]], np.arange(4))["contradicted"]
    assert np.isnan(agreement(pairs[:, :2], np.arange(2))["pearson"])
