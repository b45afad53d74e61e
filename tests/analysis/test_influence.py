from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic_studies import Shape, Truth, compare_job, finished_study

from holdfast.analysis.estimates import spread
from holdfast.analysis.influence import agreement, ratio_of_sums
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


def test_measures_along_the_training(tmp_path: Path) -> None:
    found = analyse(compare_job(finished_study(tmp_path / "a", ARMS, Shape(traced=True)))).influence
    assert found is not None
    rows = found.measures
    assert set(rows.measure) == {"dot", "mean_cosine", "norm"}
    assert rows[rows.measure == "norm"].benchmark.unique().tolist() == [""]
    one = found.logged[(found.logged.arm == "self") & (found.logged.measure == "dot") & (found.logged.step == 8)]
    own = rows[(rows.arm == "self") & (rows.measure == "dot") & (rows.step == 8)].set_index("benchmark")
    assert own.value["color"] == pytest.approx(one[one.benchmark == "color"].value.mean())


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


def test_a_ratio_of_sums_has_the_error_of_its_prompts() -> None:
    numerators, denominators = pd.Series([2.0, 1.0, 3.0]), pd.Series([1.0, 1.0, 2.0])
    found = ratio_of_sums([(numerators, denominators, pd.Series(["a", "a", "b"]))])
    assert found.means.tolist() == [1.5]
    # Prompt a has 3 − 1.5 · 2 = 0 and b 3 − 1.5 · 2 = 0.
    assert float(spread(found).questions.variance) == pytest.approx(0)
    other = ratio_of_sums([(numerators, denominators, pd.Series(["a", "b", "c"]))])
    # 0.5, −0.5 and 0 over 4, times 3/2.
    assert float(spread(other).questions.variance) == pytest.approx((0.25 + 0.25) / 16 * 1.5)
