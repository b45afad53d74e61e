from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats
from synthetic_studies import Shape, Truth, compare_job, finished_study

from holdfast.analysis.predictors import association as weighted
from holdfast.analysis.predictors import fitted
from holdfast.analysis.study import analyse

ARMS = {"rft": Truth(retention=0.9), "self": Truth(retention=0.7), "answers": Truth(retention=0.3)}


def association(pairs: np.ndarray) -> np.ndarray:
    return weighted(pairs, np.ones(pairs.shape[1]))


def test_a_point_of_weight_three_is_three_points() -> None:
    rng = np.random.default_rng(4)
    pairs = rng.integers(0, 6, (2, 12)).astype(float)
    weights = rng.integers(0, 4, (5, 12)).astype(float)
    found = weighted(pairs, weights)
    for row, times in zip(found.T, weights.astype(int), strict=True):
        x, y = np.repeat(pairs, times, axis=1)
        left = y - np.polyval(np.polyfit(x, y, 2), x)
        assert row == pytest.approx([stats.spearmanr(x, y).statistic, 1 - left.var() / y.var()])


def test_a_curve_without_noise_is_fitted_whole_and_ranked_as_scipy_ranks_it() -> None:
    x = np.array([1.0, 2, 3, 4, 5, 5])
    y = 3 - 2 * x + 0.5 * x**2
    rank, r2 = association(np.stack([x, y]))
    assert r2 == pytest.approx(1)
    assert rank == pytest.approx(stats.spearmanr(x, y).statistic)
    assert association(np.stack([np.exp(x), x]))[0] == pytest.approx(1)


def test_half_of_the_variance_is_explained_where_the_noise_has_the_other_half() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=2000)
    signal = (x**2 + x) / np.sqrt(3)
    assert association(np.stack([x, signal + rng.normal(size=len(x))]))[1] == pytest.approx(0.5, abs=0.05)
    assert association(np.stack([x, rng.normal(size=len(x))])) == pytest.approx(np.zeros(2), abs=0.05)


def test_nothing_is_said_of_what_does_not_vary_or_of_as_few_points_as_terms() -> None:
    for pairs in ([[1.0, 1, 1, 1], [1, 2, 3, 4]], [[1.0, 2, 3, 4], [1, 1, 1, 1]], [[1.0, 2, 3], [1, 3, 2]]):
        assert np.isnan(association(np.array(pairs))).all()


def test_within_arms_is_the_mean_over_arms_and_not_what_lies_between_them() -> None:
    """In either arm y falls with x, and the arm with larger x has larger y."""
    rng = np.random.default_rng(1)
    low, high = ([np.stack([far + x, far - x]) for x in rng.random((4, 8))] for far in (0.0, 10.0))
    assert fitted([low, high], 0)["spearman"] == pytest.approx(-1)
    assert fitted([low + high], 0)["spearman"] > 0.4
    assert fitted([low, high], 0)["spearman_high"] == pytest.approx(-1)


def runs(rng: np.random.Generator, count: int = 8) -> list[np.ndarray]:
    """Checkpoints of a training deviate together from y = x; over trainings the correlation is about 0.7."""
    x = rng.normal(size=count)
    y = x + rng.normal(size=count)
    return [
        np.stack([np.full(6, a), np.full(6, b)]) + 0.01 * rng.normal(size=(2, 6)) for a, b in zip(x, y, strict=True)
    ]


def test_an_interval_is_of_trainings_not_of_checkpoints_and_mostly_holds_the_truth() -> None:
    rng = np.random.default_rng(2)
    truth = 6 / np.pi * np.arcsin(np.sqrt(0.5) / 2)
    found = [fitted([runs(rng)], number) for number in range(20)]
    assert sum(one["spearman_low"] <= truth <= one["spearman_high"] for one in found) >= 16
    one = runs(rng)
    alone = fitted([[pair[:, None] for run in one for pair in run.T]], 0)
    whole = fitted([one], 0)
    assert whole["spearman"] == pytest.approx(alone["spearman"])
    width, narrow = (row["spearman_high"] - row["spearman_low"] for row in (whole, alone))
    assert width > 1.5 * narrow
    assert (whole["points"], whole["trainings"]) == (48, 8)
    assert fitted([one], 0) == whole


def test_two_trainings_have_no_interval() -> None:
    found = fitted([runs(np.random.default_rng(3), 2)], 0)
    assert np.isfinite(found["spearman"])
    assert np.isnan([found[name] for name in ("spearman_low", "spearman_high", "r2_low", "r2_high")]).all()


def test_every_checkpoint_stands_beside_what_it_forgot(tmp_path: Path) -> None:
    shape = Shape(target=20, prior=40, traced=True, predicted=True)
    analysis = analyse(compare_job(finished_study(tmp_path / "a", ARMS, shape)))
    assert analysis.predictors is not None
    points, fits = analysis.predictors
    assert len(points) == 3 * 3 * 4
    trajectory = analysis.trajectory[analysis.trajectory.replicate == "2"].set_index(["arm", "step"])
    own = points[(points.arm == "self") & (points.replicate == 2)].set_index("step")
    assert own.forgetting.to_dict() == trajectory.forgetting["self"].drop(0).to_dict()
    # The trapezoid predicts the whole change but for a twentieth, and the cosine is a tenth everywhere.
    changes = analysis.influence.changes
    whole = changes[(changes.arm == "self") & (changes.replicate == 2) & (changes.role == "prior")].trapezoid.mean()
    assert own.influence_change[32] == pytest.approx(whole)
    assert own.influence_change[4] == pytest.approx(whole * 4 / 32, rel=0.3)
    assert own.influence_direction[16] == pytest.approx(0.1)
    rows = fits.set_index(["predictor", "scope", "arm"])
    assert rows.spearman["kl_forward_target", "across", ""] > 0.9
    assert abs(rows.spearman["entropy_target", "across", ""]) < 0.5
    assert rows.trainings["kl_forward_target", "arm", "rft"] == 3
    # Of one arm's data the perplexity is the same everywhere.
    assert np.isnan(rows.r2["perplexity", "within", ""])
    assert np.isfinite(rows.r2["perplexity", "across", ""])


def test_what_is_not_finite_is_left_out_and_counted(tmp_path: Path) -> None:
    study = finished_study(tmp_path / "a", ARMS, Shape(target=8, prior=8, predicted=True))
    file = Path(next(run.path for run in study.runs if run.kind == "predictors")) / "predictors.parquet"
    table = pq.read_table(file).to_pandas()
    table.loc[1, "kl_forward_target"] = np.inf
    table.to_parquet(file)
    found = analyse(compare_job(study)).predictors
    assert found is not None
    row = found.fits.set_index(["predictor", "scope", "arm"]).loc["kl_forward_target", "across", ""]
    assert (row.points, row.left_out) == (35, 1)


def test_a_study_that_measured_none_has_no_predictors(tmp_path: Path) -> None:
    assert analyse(compare_job(finished_study(tmp_path / "a", ARMS, Shape(target=4, prior=4)))).predictors is None
