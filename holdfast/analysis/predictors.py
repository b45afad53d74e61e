"""How well what was measured of checkpoints predicts what they forgot: RL's Razor's question (arXiv 2509.04259).

A point is a checkpoint of a training. Of each predictor there is Spearman's rank correlation with forgetting, and R² of
a quadratic fit: across arms, all points together; within each arm; and within arms, the mean of these over arms.
Intervals are a percentile bootstrap over trainings, whose checkpoints stay together: they cover other trainings like
these, not other arms, questions or benchmarks. There is none of fewer than three trainings.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from scipy import stats

from holdfast.analysis.answers import Answers
from holdfast.analysis.influence import logged_measures
from holdfast.config.results import FinishedStudy, RunRecord

NAMES = {
    "kl_forward_target": "forward KL, target",
    "kl_forward_prior": "forward KL, prior",
    "kl_reverse_target": "reverse KL, target",
    "kl_reverse_prior": "reverse KL, prior",
    "l1": "movement, L1",
    "l2": "movement, L2",
    "spectral": "movement, spectral",
    "changed_bf16": "changed in bf16",
    "entropy_target": "entropy, target",
    "entropy_prior": "entropy, prior",
    "perplexity": "perplexity of training data",
    "influence_magnitude": "influence, magnitude",
    "influence_direction": "influence, direction",
    "influence_change": "influence, predicted change",
}
"""Every predictor, as people read it."""
ACROSS, WITHIN, ARM = "across", "within", "arm"
LEAST, RESAMPLES, FINITE = 3, 1000, 0.9
"""Trainings of which there is an interval, resamples, and the share of these that must have a value."""
RUN = ["study", "arm", "replicate"]


class PredictorTables(NamedTuple):
    """What was measured beside forgetting, and what it predicts."""

    points: pd.DataFrame
    """One row an evaluated checkpoint that was measured: study, setting, draw, arm, replicate, stage, stage_step, step,
    score, retention, forgetting, and each of `NAMES` that was measured."""
    fits: pd.DataFrame
    """One row a predictor and scope: predictor, scope (across | within | arm), arm ("" but for the last), measures
    spearman and r2 with intervals, points, trainings, left_out (of all points, those that are not finite)."""


def predictor_tables(studies: Sequence[FinishedStudy], every: Sequence[Answers], seed: int) -> PredictorTables | None:
    """None where nothing was measured."""
    found = [_points(study, answers) for study, answers in zip(studies, every, strict=True)]
    known = [frame for frame in found if len(frame)]
    if not known:
        return None
    points = pd.concat(known, ignore_index=True)
    fits = [row for name in NAMES if name in points for row in _fits(points, name, seed)]
    return PredictorTables(points, pd.DataFrame(fits))


def _points(study: FinishedStudy, answers: Answers) -> pd.DataFrame:
    """Predictors beside the measures of the same checkpoints."""
    place = ["arm", "replicate", "stage", "stage_step"]
    checkpoints = [one for arm in answers.arms for one in answers.checkpoints(arm)]
    asked = pd.DataFrame([one._asdict() | answers.levels(one) for one in checkpoints])
    measured = [_measured(run, study, answers) for run in study.runs if run.kind == "predictors"]
    if not measured or asked.empty:
        return pd.DataFrame()
    about = answers.place.columns
    return asked.merge(pd.concat(measured), on=place).assign(**about)[
        [*about, "arm", "replicate", "stage", "stage_step", "step", "score", "retention", "forgetting"]
        + [name for name in NAMES if any(name in frame for frame in measured)]
    ]


def _measured(run: RunRecord, study: FinishedStudy, answers: Answers) -> pd.DataFrame:
    """Of one training, with its influence where that was traced at the same step."""
    found = pq.read_table(Path(run.path) / "predictors.parquet").to_pandas()
    whose = (run.arm, run.replicate, run.stage)
    for other in study.runs:
        if other.kind == "influence" and (other.arm, other.replicate, other.stage) == whose:
            found = found.merge(_influence(other, answers), on="step", how="left")
    about = {"arm": run.arm, "replicate": run.replicate, "stage": run.stage}
    return found.rename(columns={"step": "stage_step"}).assign(**about)


def _influence(run: RunRecord, answers: Answers) -> pd.DataFrame:
    """By step: mean gradient norm a token; mean over prior benchmarks of cosine, and of predicted change so far."""
    logged = logged_measures(run)
    prior = logged["benchmark"].isin(answers.priors)
    named = {
        "influence_magnitude": logged[logged["measure"] == "norm_per_token"],
        "influence_direction": logged[prior & (logged["measure"] == "cosine")],
    }
    found = {name: rows.groupby("step")["value"].mean() for name, rows in named.items()}
    path = pq.read_table(Path(run.path) / "path.parquet").to_pandas()
    path = path[path["benchmark"].isin(answers.priors)]
    stretches = path.groupby(["benchmark", "step"])["trapezoid"].mean().unstack("benchmark").mean(axis=1)
    found["influence_change"] = stretches.cumsum(skipna=False)
    return pd.DataFrame(found).rename_axis("step").reset_index()


def _fits(points: pd.DataFrame, name: str, seed: int) -> Iterator[dict[str, Any]]:
    known = points[np.isfinite(points[name]) & np.isfinite(points["forgetting"])]
    by_arm = {
        str(arm): [run[[name, "forgetting"]].to_numpy(float).T for _, run in rows.groupby(RUN, sort=False)]
        for arm, rows in known.groupby("arm", sort=False)
    }
    everything = [run for own in by_arm.values() for run in own]
    scopes = {(ACROSS, ""): [everything], (WITHIN, ""): list(by_arm.values())}
    scopes |= {(ARM, arm): [own] for arm, own in by_arm.items()}
    for (scope, arm), groups in scopes.items():
        row = {"predictor": name, "scope": scope, "arm": arm} | fitted(groups, seed)
        yield row | {"left_out": len(points) - len(known)}


def fitted(groups: Sequence[Sequence[np.ndarray]], seed: int) -> dict[str, Any]:
    """Mean over groups of trainings of Spearman's ρ and R²; every training is x and y (2, checkpoints).

    Trainings are drawn anew within their groups.
    """
    runs = [run for group in groups for run in group]
    groups = [group for group in groups if group]
    value = _mean(groups) if groups else np.full(2, np.nan)
    low = high = np.full(2, np.nan)
    if min(map(len, groups), default=0) >= LEAST:
        low, high = _interval(groups, seed)
    return {
        **{"spearman": value[0], "spearman_low": low[0], "spearman_high": high[0]},
        **{"r2": value[1], "r2_low": low[1], "r2_high": high[1]},
        **{"points": sum(run.shape[1] for run in runs), "trainings": len(runs)},
    }


def _interval(groups: Sequence[Sequence[np.ndarray]], seed: int) -> np.ndarray:
    """(2, 2): low and high of both measures."""

    def of(*drawn: np.ndarray, axis: int = -1) -> np.ndarray:
        # How often each training was drawn.
        times = [(one[..., None] == np.arange(len(group))).sum(-2) for one, group in zip(drawn, groups, strict=True)]
        return _mean(groups, times)

    places = [np.arange(len(group)) for group in groups]
    how: dict[str, Any] = {"vectorized": True, "method": "percentile", "n_resamples": RESAMPLES}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        drawn = stats.bootstrap(places, of, rng=np.random.default_rng(seed), **how).bootstrap_distribution
    few = np.isfinite(drawn).mean(1) < FINITE
    return np.where(few, np.nan, np.nanpercentile(np.where(few[:, None], 0.0, drawn), [2.5, 97.5], axis=1))


def _mean(groups: Sequence[Sequence[np.ndarray]], times: Sequence[np.ndarray] | None = None) -> np.ndarray:
    """Over the groups in which it is known (2, …), of trainings that were drawn so many times (…, trainings)."""
    found = []
    for group, often in zip(groups, times or [np.ones(len(group)) for group in groups], strict=True):
        found.append(association(np.concatenate(group, 1), np.repeat(often, [run.shape[1] for run in group], -1)))
    known = np.isfinite(found)
    with np.errstate(invalid="ignore"):
        return np.where(known, found, 0.0).sum(0) / known.sum(0)


def association(pairs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Spearman's ρ, and R² of y = a + bx + cx², of x and y (2, points) of which each stands there so many times
    (…, points); not a number where either is constant, or of as few points as the fit has terms. Returns (2, …).

    All resamples at once, for which scipy's and numpy's functions take no weights; tests hold it to theirs.
    """
    x, y = pairs
    first, second = (_centred(_ranks(values, weights), weights) for values in (x, y))
    scaled = (x - x.mean()) / (x.std() or 1.0)
    terms = np.stack([np.ones_like(x), scaled, scaled**2], -1)
    left = _centred(y, weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        spreads = [(weights * values**2).sum(-1) for values in (first, second, left)]
        rank = (weights * first * second).sum(-1) / np.sqrt(spreads[0] * spreads[1])
        # By the normal equations, whose inverse leaves out terms that fewer values of x cannot tell apart.
        slopes = (weights * left) @ terms
        products = (weights @ (terms[:, :, None] * terms[:, None]).reshape(len(x), 9)).reshape(
            *weights.shape[:-1], 3, 3
        )
        inverse = np.linalg.pinv(products, rcond=1e-9, hermitian=True)
        explained = (slopes[..., None, :] @ inverse @ slopes[..., None])[..., 0, 0] / spreads[2]
    known = (spreads[0] > 0) & (spreads[1] > 0) & (len(x) > terms.shape[1])
    return np.where(known, [rank, explained], np.nan)


def _centred(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return values - (weights * values).sum(-1, keepdims=True) / weights.sum(-1, keepdims=True)


def _ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Of values (points,) of which each stands there so many times; equal ones share the mean of their ranks."""
    _, which = np.unique(values, return_inverse=True)
    each = weights @ (which[:, None] == np.arange(which.max() + 1)).astype(float)
    return (each.cumsum(-1) - (each - 1) / 2)[..., which]
