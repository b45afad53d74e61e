"""Results for a person at a terminal, read from the tracking store."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from holdfast.errors import UserError
from holdfast.report.terminal import arms_table
from tasks.redaction import shown
from tasks.tracking import open_store

FOR_MACHINES = ("holdfast.machine", "holdfast.alive", "holdfast.started")
"""Tags that tell whether a run's process lives."""

# What is printed is text of the user's own: `[x]` is part of a path, `:bug:` no picture.
console = Console(highlight=False, markup=False, emoji=False)
# A file or a pipe is as wide as the table needs.
if not console.is_terminal:
    console.width = 120


def print_outcome(report: Path, summary: Path) -> None:
    """The table of arms, or of a sweep, and where the report is."""
    content = json.loads(summary.read_text())
    console.print(arms_table(content))
    console.print(f"\nReport: {report}", soft_wrap=True)


def show_report(name: str, root: Path) -> None:
    """The latest report of a study or a sweep. UserError where there is none."""
    store = open_store(root)
    for run in store.named(name):
        if run.data.tags.get("holdfast.kind") not in ("study", "sweep"):
            continue
        place = store.artifacts.of(run)
        if (place / "report.html").is_file():
            print_outcome(place / "report.html", place / "summary.json")
            return
    raise UserError(
        f"{name}: no study or sweep of this name has a report in {store.shown}; make one with `holdfast study FILE`."
    )


def show_run(prefix: str, root: Path) -> None:
    """One run. UserError unless exactly one run id begins so."""
    store = open_store(root)
    run = store.run(prefix)
    console.print(_facts(run, store.artifacts.of(run)))
    if run.data.metrics:
        console.print(_metrics(run))


def print_influence(metrics: dict[str, float]) -> None:
    """One row a benchmark: what the run's source did to it, at the last checkpoint and along the training."""
    shown = {"cosine": 3, "exchange": 3, "tracin": 4, "change_first_order": 3, "change_trapezoid": 3}
    shown["change_measured"] = 3
    rows: dict[str, dict[str, float]] = {}
    for name, value in metrics.items():
        _, source, *rest = name.split("/")
        if len(rest) == 2 and rest[1] in shown:
            rows.setdefault(f"{source} on {rest[0]}", {})[rest[1]] = value
    table = Table("", *(name.replace("_", " ") for name in shown), box=None, header_style="bold")
    for name, found in rows.items():
        cells = [f"{found[key]:+.{digits}f}" if key in found else "–" for key, digits in shown.items()]
        table.add_row(name, *cells)
    console.print(table)


def _facts(run: Any, place: Path) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_row("run", shown(f"{run.info.run_id} ({run.info.run_name})"))
    table.add_row("status", run.info.status)
    told = {name: value for name, value in run.data.tags.items() if name.startswith("holdfast.") and value}
    told = {name: value for name, value in told.items() if name not in FOR_MACHINES}
    for name, value in sorted(told.items()):
        table.add_row(shown(name.removeprefix("holdfast.")), shown(value))
    table.add_row("files", str(place))
    return table


def _metrics(run: Any) -> Table:
    table = Table("metric", "last", box=None, header_style="bold")
    for name, value in sorted(run.data.metrics.items()):
        table.add_row(name, f"{value:.4g}" if math.isfinite(value) else "not finite")
    return table
