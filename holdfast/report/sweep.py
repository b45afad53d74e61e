"""One self-contained page on a sweep: what a study comes to in every setting, and what the settings change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from holdfast.analysis.contrasts import MEASURES, apart, known_intervals
from holdfast.analysis.sweep_runs import Layout, read_layout
from holdfast.analysis.sweep_summary import signed, summarise_sweep
from holdfast.config.jobs import Contrast
from holdfast.journal import strict_json
from holdfast.report import charts, sweep_charts
from holdfast.report.examples import cases
from holdfast.report.study import templates
from holdfast.report.sweep_charts import LENGTH, REWARD, Course

Logged = dict[tuple[str, str], list[Course]]
COURSES = {LENGTH: "mean length, tokens", REWARD: "mean reward"}


def contrast(job: Contrast, out: Path) -> dict[str, Any]:
    """Write report.html and summary.json; returns the notes of the result."""
    layout = read_layout(job)
    summary = summarise_sweep(job, layout)
    page = render(job, layout, summary)
    (out / "summary.json").write_text(strict_json(summary, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (out / "report.html").write_text(page, encoding="utf-8")
    return {
        "members": len(job.members),
        "headline": summary["headline"],
        "contrasts": len(summary["contrasts"]["rows"]),
        "report_bytes": len(page.encode()),
    }


def render(job: Contrast, layout: Layout, summary: dict[str, Any]) -> str:
    """The page; all text that comes from data or models is escaped by the template engine."""
    environment = templates()
    environment.filters |= {"signed": signed}
    environment.tests |= {"apart": apart}
    panels = summary["panels"]
    logged = {title: _logged(layout, metric) for metric, title in COURSES.items()}
    return environment.get_template("sweep.html.j2").render(
        job=job,
        summary=summary,
        swatches=[charts.swatch(index) for index in range(len(layout.series))],
        by_samples={name: sweep_charts.by_samples(panel, layout.series) for name, panel in panels.items()},
        by_length={name: sweep_charts.by_length(panel) for name, panel in panels.items()},
        courses={title: _courses(layout, found) for title, found in logged.items()},
        reinforced=sorted({one.series for found in logged.values() for group in found.values() for one in group}),
        bars=_bars(summary),
        cases=cases(layout, job.seed),
    )


def _logged(layout: Layout, metric: str) -> Logged:
    return {
        (panel, column): sweep_charts.courses(layout, panel, column, metric)
        for panel in layout.panels
        for column in layout.columns
    }


def _courses(layout: Layout, found: Logged) -> dict[str, dict[str, Any]]:
    """Small charts by panel and column, all on one range; panels in one row where there is one column alone."""
    every = [one for group in found.values() for one in group]
    if not every:
        return {}
    y_range = sweep_charts.shared(every)
    if layout.roles.samples is None:
        charts = {panel: sweep_charts.course(group, y_range, panel) for (panel, _), group in found.items() if group}
        return {"": charts}
    return {
        panel: {
            column: sweep_charts.course(found[panel, column], y_range, f"{layout.roles.samples} {column}")
            for column in layout.columns
            if found[panel, column]
        }
        for panel in layout.panels
        if any(found[panel, column] for column in layout.columns)
    }


def _bars(summary: dict[str, Any]) -> dict[str, Any]:
    """How to draw an interval, on one axis for each measure."""
    ends = {
        name: [
            abs(end)
            for row in summary["contrasts"]["rows"]
            for one in known_intervals(row[name])
            for end in one.values()
        ]
        for name in MEASURES
    }
    reach = {name: max([0.05, *values]) for name, values in ends.items()}
    return {name: lambda found, r=reach[name]: sweep_charts.bar(found, r) for name in MEASURES}
