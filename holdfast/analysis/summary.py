"""summary.json: the numbers of a study, which the report draws and the terminal and the model registry read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.analysis.forgotten import ledger
from holdfast.analysis.frontier import Place, at_score, common_score, matched_scores, pareto
from holdfast.analysis.records import ArmRun, Finished, Point
from holdfast.analysis.uncertainty import Uncertainty

REPORTED = ("target/", "prior/", "forgetting/", "retention", "kl/")
Chance = dict[str, float | None]


def summarise(finished: Finished, chance: Chance, seed: int) -> dict[str, Any]:
    """Everything but texts and pictures. `chance` is what guessing scores: "target", and every prior benchmark."""
    places = {arm.name: trajectory(arm) for arm in finished.arms}
    uncertainty = Uncertainty(finished, seed)
    benchmarks = [name for name in chance if name != "target"]
    guesses = [chance[name] for name in benchmarks]
    known = [guess for guess in guesses if guess is not None]
    content = {
        "target": {
            "benchmark": finished.target,
            "chance": chance["target"],
            "questions": sum(row.role == "target" for row in finished.base_graded),
        },
        "prior": {
            "benchmarks": benchmarks,
            "chance": {name: chance[name] for name in benchmarks},
            "chance_mean": sum(known) / len(known) if len(known) == len(guesses) else None,
            "questions": sum(row.role == "prior" for row in finished.base_graded),
        },
        "base": {
            "metrics": reported(finished.base, finished.base),
            "intervals": uncertainty.of_base(),
            "benchmarks": ledger(finished.base_graded, finished.base_graded),
        },
        "arms": {arm.name: _arm(arm, finished, uncertainty) for arm in finished.arms},
        "matched": _matched(places),
        "frontier": [place._asdict() for place in pareto([p for path in places.values() for p in path])],
        "differences": uncertainty.differences(),
        "aliases": _aliases(finished.arms),
        "alarms": [alarm._asdict() for arm in finished.arms for alarm in arm.alarms],
    }
    return plain(content)


def retention(point: Point, base: Point) -> float:
    """Prior mean now / base; 0 of nothing is 0."""
    return point.prior_mean / base.prior_mean if base.prior_mean else 0.0


def trajectory(arm: ArmRun) -> list[Place]:
    """The arm's evaluations as places on the frontier plot, the base model first."""
    return _path(arm.name, arm.points)


def _path(name: str, points: Sequence[Point]) -> list[Place]:
    base = points[0]
    return [Place(name, p.step, p.score, retention(p, base), base.prior_mean - p.prior_mean) for p in points]


def reported(point: Point, base: Point) -> dict[str, float]:
    """Metrics under their names in MLflow, with what follows from them."""
    metrics = {name: value for name, value in point.metrics.items() if name.startswith(REPORTED)}
    lost = {name: base.prior[name] - value for name, value in point.prior.items()}
    metrics |= {f"forgetting/{name}": value for name, value in lost.items()}
    metrics |= {
        "forgetting/mean": base.prior_mean - point.prior_mean,
        "prior/mean/accuracy": point.prior_mean,
        "retention": retention(point, base),
    }
    return dict(sorted(metrics.items()))


def _arm(arm: ArmRun, finished: Finished, uncertainty: Uncertainty) -> dict[str, Any]:
    return {
        "steps": arm.steps,
        "seconds": arm.seconds,
        "metrics": reported(arm.points[-1], finished.base),
        "intervals": uncertainty.of_arm(arm.name),
        "benchmarks": ledger(finished.base_graded, arm.final),
    }


def _matched(places: dict[str, list[Place]]) -> dict[str, Any]:
    scores = matched_scores(list(places.values()))
    reached = {arm: [at_score(path, score) for score in scores] for arm, path in places.items()}
    return {"scores": scores, "all_arms": common_score(list(places.values())), "arms": reached}


def _aliases(arms: tuple[ArmRun, ...]) -> dict[str, Any]:
    """Checkpoints worth a name: the most skilled, and the best keeper among those at the score that all arms reach.

    Validation questions choose; score and retention are those of the test questions.
    """
    paths = [_path(arm.name, [point.validation for point in arm.points]) for arm in arms]
    both = [(arm, zip(path, arm.points, strict=True)) for arm, path in zip(arms, paths, strict=True)]
    trained = [(place, point, arm) for arm, pairs in both for place, point in pairs if place.step > 0]
    floor = common_score(paths) or 0.0
    skilled = max(trained, key=lambda entry: (entry[0].score, entry[0].retention))
    keeping = max(
        (entry for entry in trained if entry[0].score >= floor), key=lambda entry: (entry[0].retention, entry[0].score)
    )
    return {
        alias: {
            "arm": arm.name,
            "stage": point.stage,
            "step": point.stage_step,
            "run_id": next(s.record.run_id for s in arm.stages if s.record.stage == point.stage),
            "score": point.score,
            "retention": retention(point, arm.points[0]),
        }
        for alias, (_, point, arm) in {"best-skill": skilled, "best-retention": keeping}.items()
    }


def plain(value: Any) -> Any:
    """JSON with named fields, floats to six digits."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value
