"""summary.json of a sweep: the numbers that its page draws and the terminal reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.analysis.contrasts import contrasts
from holdfast.analysis.length_split import length_split, mean_tokens
from holdfast.analysis.records import comparison_digest
from holdfast.analysis.study_summary import rounded
from holdfast.analysis.sweep_estimates import Estimate, Measured, mean_estimate, measure_models
from holdfast.analysis.sweep_runs import BASE, Layout, Model, Series
from holdfast.analysis.table import number
from holdfast.benchmarks import catalog
from holdfast.config.jobs import Contrast
from holdfast.config.prior import Prior

NAMED_PANELS = 3
"""A headline names no more."""


def summarise_sweep(job: Contrast, layout: Layout) -> dict[str, Any]:
    """Everything but texts and pictures."""
    measured = measure_models(layout.settings, job.seed)
    found = contrasts(layout, measured)
    content = {
        "sweep": job.name,
        "seed": job.seed,
        "data_version": job.data_version,
        "code": job.code,
        "evidence": comparison_digest(tuple(run for member in job.members for run in member.runs)),
        "factors": {factor: list(levels) for factor, levels in job.factors.items()},
        "roles": layout.roles._asdict(),
        "headline": headline(layout, measured, found["rows"]),
        "series": [series._asdict() for series in layout.series],
        "panels": {panel: _panel(layout, panel, measured) for panel in layout.panels},
        "length_split": length_split(layout, job.seed),
        "contrasts": found,
        "members": [_member(job, index, layout) for index in range(len(job.members))],
        "alarms": [
            {"member": setting.study.name, **alarm._asdict()}
            for setting in layout.settings
            for arm in setting.finished.arms
            for alarm in arm.alarms
        ],
        "failed": job.failed,
    }
    return rounded(content)


def headline(layout: Layout, measured: dict[Model, Measured], rows: Sequence[dict[str, Any]]) -> str:
    """What the first factor with two levels does, over all arms; without one, the range of accuracies.

    Which it is follows from the factors and not from the results.
    """
    if not layout.series:
        return "No arm has finished training yet."
    first = next((row for row in rows if row["factor"]), None)
    return _effect(layout, first) if first else _span(layout, measured)


def _effect(layout: Layout, row: dict[str, Any]) -> str:
    factor = row["factor"]
    parts = [
        f"{signed(found)}{_in(layout, panel)}"
        for panel, found in list(row["accuracy"]["panels"].items())[:NAMED_PANELS]
        if found
    ]
    first, second = layout.factors[factor]
    effect = f"With {factor} {first} rather than {second}, target accuracy differs by {_listed(parts)}"
    return f"{effect}; arms: {row['within']}."


def _span(layout: Layout, measured: dict[Model, Measured]) -> str:
    """The least and the most accurate series of each panel."""
    parts = []
    for panel in layout.panels[:NAMED_PANELS]:
        ends = {
            series.name: mean_estimate([measured[model].accuracy for model in models])
            for series in layout.series
            if (models := layout.models(series.arm, series.levels, panel))
        }
        if ends:
            least, most = min(ends, key=lambda name: ends[name].value), max(ends, key=lambda name: ends[name].value)
            low, high = (f"{ranged(ends[name].interval._asdict())} for {name}" for name in (least, most))
            span = f"is {low}" if len(ends) == 1 else f"ranges from {low} to {high}"
            parts.append(span + _in(layout, panel))
    return f"At the end of training, target accuracy {'; '.join(parts)}."


def _in(layout: Layout, panel: str) -> str:
    return f" in {panel}" if layout.roles.panel else ""


def _listed(parts: Sequence[str]) -> str:
    return " and ".join((", ".join(parts[:-1]), parts[-1])) if len(parts) > 1 else parts[0]


def ranged(found: dict[str, float]) -> str:
    """A number with its interval."""
    return f"{number(found['value'])} ({number(found['low'])} to {number(found['high'])})"


def signed(found: dict[str, float]) -> str:
    """A difference with its interval."""
    return ("+" if round(found["value"], 2) > 0 else "") + ranged(found)


def _panel(layout: Layout, panel: str, measured: dict[Model, Measured]) -> dict[str, Any]:
    indices = layout.within(panel)
    setting = layout.settings[indices[0]]
    models = [Model(index, arm) for index in indices for arm in (BASE, *layout.settings[index].arms)]
    names = [prior.name for prior in setting.study.prior]
    known = [catalog.chance(p.name) if isinstance(p, Prior) else None for p in setting.study.prior]
    guesses = [guess for guess in known if guess is not None]
    return {
        "target": {
            "benchmark": setting.finished.target,
            "chance": catalog.target_chance(setting.study.target),
            "questions": len(setting.target(BASE)),
        },
        "prior": {
            "benchmarks": names,
            "chance_mean": sum(guesses) / len(names) if len(guesses) == len(names) else None,
            "questions": sum(row.role == "prior" for row in setting.finished.base_graded),
        },
        "columns": {column: _samples(layout, panel, column) for column in layout.columns},
        "partial": any(measured[model].score.value != measured[model].accuracy.value for model in models),
        "bases": [_base(layout, levels, panel, measured) for levels in layout.combinations],
        "rows": [_row(layout, series, panel, measured) for series in layout.series],
    }


def _samples(layout: Layout, panel: str, column: str) -> int | None:
    """Training questions; of repeats, the first one's."""
    return next((layout.settings[index].samples for index in layout.within(panel, column)), None)


def _base(layout: Layout, levels: tuple[str, ...], panel: str, measured: dict[Model, Measured]) -> dict[str, Any]:
    """The base as it was asked at these levels of the series factors."""
    found = _cell(layout, layout.models(BASE, levels, panel), measured)
    return {"levels": levels, "name": layout.series_name("base", levels), "cell": found}


def _row(layout: Layout, series: Series, panel: str, measured: dict[Model, Measured]) -> dict[str, Any]:
    cells = {
        column: _cell(layout, layout.models(series.arm, series.levels, panel, column), measured)
        for column in layout.columns
    }
    return {"series": series.name, "levels": series.levels, "cells": cells}


def _cell(layout: Layout, models: Sequence[Model], measured: dict[Model, Measured]) -> dict[str, Any] | None:
    """The mean over repeats with its interval, and the range of the repeats themselves where there are several."""
    if not models:
        return None
    values = [measured[model] for model in models]
    named: dict[str, list[Estimate]] = {
        "accuracy": [value.accuracy for value in values],
        "score": [value.score for value in values],
        "prior": [value.prior for value in values],
        "retention": [value.retention for value in values if value.retention],
    }
    tables = [layout.settings[model.setting].target(model.arm) for model in models]
    return {
        "models": len(models),
        "unparsed": sum(sum(row.parsed is None for row in rows) / len(rows) for rows in tables) / len(tables),
        "tokens": sum(mean_tokens(layout, model) for model in models) / len(models),
        "intervals": {
            name: mean_estimate(estimates).interval
            for name, estimates in named.items()
            if len(estimates) == len(models)
        },
        "ranges": {
            name: [min(e.value for e in estimates), max(e.value for e in estimates)]
            for name, estimates in named.items()
            if len(estimates) > 1
        },
    }


def _member(job: Contrast, index: int, layout: Layout) -> dict[str, Any]:
    member = job.members[index]
    setting = next((s for s in layout.settings if s.study.name == member.study.name), None)
    arms = setting.finished.arms if setting else ()
    return {
        "report": member.study.name,
        "levels": member.levels,
        "samples": setting.samples if setting else None,
        "arms": [arm.name for arm in arms],
        "missing": [name for name in member.study.arms if name not in {arm.name for arm in arms}],
        "seconds": sum(arm.seconds for arm in arms),
        "alarms": sum(len(arm.alarms) for arm in arms),
    }
