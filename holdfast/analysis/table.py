"""The table of arms for the terminal; the report shows the same numbers."""

from __future__ import annotations

import math
from typing import Any

from rich.table import Table
from rich.text import Text


def number(value: float | str | None, digits: int = 2) -> str:
    """With a true minus sign, and no minus before zero; JSON has "NaN" and "Infinity" as text."""
    if value is None:
        return "–"
    value = float(value)
    if not math.isfinite(value):
        return "not finite"
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def duration(seconds: float) -> str:
    """Two units at most, so that 34 s and 2 h 5 min read alike."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{seconds / 60:.1f} min" if seconds < 600 else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def unparsed(metrics: dict[str, float]) -> float | None:
    """Mean share of prior questions whose answer could not be read."""
    shares = [v for name, v in metrics.items() if name.startswith("prior/") and name.endswith("/unparsed")]
    return sum(shares) / len(shares) if shares else None


def arms_table(summary: dict[str, Any]) -> Table:
    """One row an arm, the base model first; `summary` is the content of summary.json."""
    target = summary["target"]
    score = f"target/{target['benchmark']}/score"
    table = Table(title=None, header_style="bold", box=None, pad_edge=False, padding=(0, 2))
    table.add_column("arm")
    skill = _over("skill", f"chance {number(target['chance'])}")
    prior = _over("prior mean", f"chance {number(summary['prior']['chance_mean'])}")
    for name in (
        "steps",
        "time",
        skill,
        prior,
        "retention",
        _over("forgetting", "mean"),
        _over("unparsed", "prior"),
    ):
        table.add_column(name, justify="right")
    table.add_row("base", "", "", *_numbers(summary["base"]["metrics"], score), style="dim")
    for name, arm in summary["arms"].items():
        table.add_row(Text(name), str(arm["steps"]), duration(arm["seconds"]), *_numbers(arm["metrics"], score))
    return table


def _over(name: str, note: str) -> Text:
    return Text.assemble(name, "\n", (note, "dim"))


def _numbers(metrics: dict[str, float], score: str) -> list[str]:
    names = (score, "prior/mean/accuracy", "retention", "forgetting/mean")
    return [number(metrics[name]) for name in names] + [number(unparsed(metrics))]


def sweep_table(summary: dict[str, Any]) -> Table:
    """Target accuracy ± half the width of its interval; one row a panel and series, `summary` as a sweep's."""
    roles = summary["roles"]
    table = Table(title=None, header_style="bold", box=None, pad_edge=False, padding=(0, 2))
    if roles["panel"]:
        table.add_column(Text(roles["panel"]))
    table.add_column("arm")
    table.add_column("base", justify="right")
    columns = list(next(iter(summary["panels"].values()))["columns"])
    for column in columns:
        name = f"{roles['samples']} {column}" if roles["samples"] else "trained"
        table.add_column(Text(name), justify="right")
    for panel, found in summary["panels"].items():
        bases = {tuple(base["levels"]): base["cell"] for base in found["bases"]}
        for row in found["rows"]:
            cells = [bases[tuple(row["levels"])], *(row["cells"][column] for column in columns)]
            named = [Text(panel)] if roles["panel"] else []
            table.add_row(*named, Text(row["series"]), *(_accuracy(cell) for cell in cells))
    return table


def _accuracy(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return "–"
    found = cell["intervals"]["accuracy"]
    return f"{number(found['value'])} ± {number((found['high'] - found['low']) / 2)}"
