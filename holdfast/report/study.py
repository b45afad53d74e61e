"""One self-contained page on a finished study: every number in it comes from summary.json or from a graded answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from holdfast.analysis.forgetting import pareto
from holdfast.analysis.influence_runs import Trace, read_traces
from holdfast.analysis.influence_summary import significant, summarise_influence, sure
from holdfast.analysis.records import ArmRun, Finished, comparison_digest, finished_runs
from holdfast.analysis.study_summary import ChanceScores, summarise_study, trajectory
from holdfast.analysis.table import duration, number, unparsed
from holdfast.benchmarks import catalog
from holdfast.benchmarks.targets.protocol import described
from holdfast.config.jobs import Compare
from holdfast.config.methods import GRPO, SFT
from holdfast.config.prior import Prior
from holdfast.config.study import Study
from holdfast.journal import strict_json
from holdfast.report import charts, examples, influence_charts, influential, study_charts
from holdfast.report.charts import Level


class StageRow(NamedTuple):
    """A stage's settings."""

    method: str
    source: str
    learning_rate: str
    weights: str
    frozen: str
    arguments: str


def compare(job: Compare, out: Path) -> dict[str, Any]:
    """Write report.html and summary.json; returns the notes of the result."""
    finished = finished_runs(job.runs, tuple(job.study.arms))
    traced = read_traces(finished, job.study)
    summary = {
        "study": job.study.name,
        "seed": job.study.seed,
        "data_version": job.data_version,
        "code": job.code,
        "evidence": comparison_digest(job.runs),
        **summarise_study(finished, chance_scores(job.study), job.study.seed),
        "failed": job.failed,
    }
    if traced:
        summary["influence"] = summarise_influence(traced, job.study.seed)
    (out / "summary.json").write_text(strict_json(summary, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    page = render(job, finished, summary, traced)
    (out / "report.html").write_text(page, encoding="utf-8")
    return {"arms": len(finished.arms), "headline": headline(summary), "report_bytes": len(page.encode())}


def chance_scores(study: Study) -> ChanceScores:
    """What guessing scores on the target and on each prior benchmark; None where nobody knows."""
    known = {p.name: catalog.chance(p.name) if isinstance(p, Prior) else None for p in study.prior}
    return {"target": catalog.target_chance(study.target), **known}


def headline(summary: dict[str, Any]) -> str:
    """The result in one sentence, without taking sides."""
    score = f"target/{summary['target']['benchmark']}/score"
    arms, base = summary["arms"], summary["base"]["metrics"][score]
    common = summary["matched"]["all_arms"]
    if len(arms) == 1:
        name, metrics = next((name, arm["metrics"]) for name, arm in arms.items())
        moved = f"{number(base)} to {number(metrics[score])}"
        kept = number(metrics["retention"])
        return f"The arm {name} moves the target score from {moved} and retains {kept} of its prior accuracy."
    if common is None:
        end = {name: arm["metrics"]["retention"] for name, arm in arms.items()}
        return f"Not every arm rises above the base’s target score of {number(base)}; at the end, {_range(end)}."
    matched = {name: found[0]["retention"] for name, found in summary["matched"]["arms"].items()}
    return f"At a target score of {number(common)}, which all {len(arms)} arms reach, {_range(matched)}."


def _range(kept: dict[str, float]) -> str:
    least, most = min(kept, key=kept.__getitem__), max(kept, key=kept.__getitem__)
    return f"retention ranges from {number(kept[least])} ({least}) to {number(kept[most])} ({most})"


def render(job: Compare, finished: Finished, summary: dict[str, Any], traced: Sequence[Trace] = ()) -> str:
    """The page; all text that comes from data or models is escaped by the template engine."""
    environment = templates()
    environment.filters |= {"unparsed": unparsed, "significant": significant, "sure": sure, "note": _note}
    data, seed = job.data.path, job.study.seed
    names = [arm.name for arm in finished.arms]
    return environment.get_template("study.html.j2").render(
        job=job,
        study=job.study,
        summary=summary,
        headline=headline(summary),
        skill=described(job.study.target),
        arms=finished.arms,
        passes=sorted({name for arm in summary["arms"].values() for name in arm["metrics"] if "/pass_at_" in name}),
        swatch={name: charts.swatch(index) for index, name in enumerate(names)},
        stages={name: [_stage_row(stage) for stage in job.study.arms[name]] for name in names},
        drawn=_figures(finished, summary),
        puzzles=examples.puzzles(finished, data, job.study.target, seed),
        lost=examples.lost(finished, data, seed),
        influence=_influence(job, traced, summary) if traced else None,
        facts=_facts(finished),
        samples=[_provenance(Path(run.path), run.arm) for run, _ in finished.others if run.kind == "sample"],
    )


def templates() -> Environment:
    """The pages, which escape everything and know no undefined names."""
    environment = Environment(
        loader=PackageLoader("holdfast.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "duration": duration}
    return environment


def _figures(finished: Finished, summary: dict[str, Any]) -> dict[str, Any]:
    arms, base, prior = finished.arms, finished.base.prior_mean, summary["prior"]
    paths = {arm.name: trajectory(arm) for arm in arms}
    front = pareto([point for path in paths.values() for point in path])
    chance, guess = Level(summary["target"]["chance"], "chance"), prior["chance_mean"]
    matched = Level(summary["matched"]["all_arms"], "matched", "matched")
    guessed = Level(guess / base if guess and base else None, "prior answers guessed")
    levels = [Level(guess, "chance"), Level(base, "base", above=True)]
    return {
        "frontier": study_charts.frontier(paths, front, [chance, matched], guessed),
        "skill": study_charts.curves(arms, lambda p: p.score, "target score", [chance], small=False),
        "prior": study_charts.curves(arms, lambda p: p.prior_mean, "prior accuracy, mean", levels, small=False),
        "benchmarks": [_benchmark(arms, name, prior["chance"][name]) for name in prior["benchmarks"]],
        "drift": study_charts.drift(arms),
    }


def _influence(job: Compare, traced: Sequence[Trace], summary: dict[str, Any]) -> dict[str, Any]:
    return {
        "traces": traced,
        "magnitude_direction": influence_charts.magnitude_direction(traced),
        "dots_along_training": influence_charts.dots_along_training(traced, summary["influence"]["traces"]),
        "predicted_measured": influence_charts.predicted_measured(traced),
        "rankings": influential.influential_samples(traced, job.data.path, job.study.target),
    }


def _benchmark(arms: tuple[ArmRun, ...], name: str, chance: float | None) -> Markup:
    return study_charts.curves(arms, lambda point: point.prior.get(name), name, [Level(chance)], small=True)


def _stage_row(stage: SFT | GRPO) -> StageRow:
    arguments = dict(stage.trainer)
    rate = arguments.pop("learning_rate", None)
    arguments.pop("max_steps", None)
    source = "own rollouts, rewarded"
    if isinstance(stage, SFT):
        source = stage.source.kind
        if stage.source.kind == "rollouts":
            source = f"rollouts of {stage.source.arm} ({stage.source.keep}, step {stage.source.step})"
    else:
        arguments["rewards"] = " + ".join(
            f"{term.weight:g} {name}" for name, term in stage.rewards.items() if term.weight
        )
    return StageRow(
        method=stage.method.upper(),
        source=source,
        learning_rate="default" if rate is None else scientific(float(rate)),
        weights="LoRA" if stage.lora is not None else "full",
        frozen=", ".join(stage.freeze) or "nothing",
        arguments=", ".join(f"{key} {value}" for key, value in arguments.items()),
    )


def scientific(value: float) -> str:
    """1e-4 rather than 0.0001 or 1e-04."""
    digits, exponent = f"{value:.3e}".split("e")
    return f"{float(digits):g}e{int(exponent)}"


def _facts(finished: Finished) -> list[tuple[str, str, str]]:
    """The notes of all runs: (run, fact, value)."""
    runs = [(run.kind if run.arm is None else f"{run.kind} {run.arm}", result.notes) for run, result in finished.others]
    runs += [(f"train {arm.name}", stage.result.notes) for arm in finished.arms for stage in arm.stages]
    return [(run, name.replace("_", " "), _note(value)) for run, notes in runs for name, value in notes.items()]


def _note(value: Any, limit: int = 8) -> str:
    if isinstance(value, list):
        more = [f"and {len(value) - limit} more"] if len(value) > limit else []
        return f"{len(value)}: {', '.join([*map(str, value[:limit]), *more])}" if value else "none"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_note(item)}" for key, item in value.items()) or "none"
    return number(value, 4) if isinstance(value, float) else str(value)


def _provenance(directory: Path, arm: str | None) -> dict[str, Any]:
    """Where the completions that an arm learned from came from."""
    table = pq.read_table(directory / "samples.parquet")
    rows = table.select(["model", "step", "temperature", "seed", "accuracy", "id"]).to_pylist()
    return {
        "arm": arm,
        "completions": len(rows),
        "questions": len({row["id"] for row in rows}),
        "right": sum(row["accuracy"] for row in rows) / max(1, len(rows)),
        **{name: sorted({row[name] for row in rows}) for name in ("model", "step", "temperature", "seed")},
    }
