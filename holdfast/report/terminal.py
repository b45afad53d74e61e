"""The table of arms for the terminal; the page shows the same numbers."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from rich.table import Table
from rich.text import Text

from holdfast.report.words import number

COLUMNS = ("arm", "replicates", "skill", "prior mean", "retention", "forgetting", "unparsed")


def arms_table(summary: dict[str, Any]) -> Table:
    """One row an arm with its 95 % intervals, each setting's base first; `summary` is the content of summary.json."""
    table = Table(header_style="bold", box=None, pad_edge=False, padding=(0, 2))
    settings = summary.get("settings") or {"": summary}
    for name in COLUMNS if "" in settings else ("setting", *COLUMNS):
        # Settings may differ in their ends alone.
        table.add_column(name, justify="left" if name in ("setting", "arm") else "right", overflow="fold")
    for setting, found in settings.items():
        label = [Text(setting)] if setting else []
        names = ("prior/mean/accuracy", "retention", "forgetting/mean", "prior/mean/unparsed")
        base = found["base"]["metrics"]
        # Skill is the mean over the targets.
        skill = fmean(base[name] for name in base if name.startswith("target/") and name.endswith("/score"))
        table.add_row(*label, "base", "", number(skill), *(number(base.get(name)) for name in names), style="dim")
        for arm, row in found["arms"].items():
            cells = [_ranged(row["intervals"].get(name)) for name in names]
            reached = _ranged({**row["score"], "value": row["score"]["mean"]})
            table.add_row(*label, Text(arm), str(row["replicates"]), reached, *cells)
    return table


def _ranged(found: dict[str, float | None] | None) -> str:
    """A number with half the width of its interval."""
    if found is None or found["low"] is None or found["high"] is None:
        return number(found["value"] if found else None)
    return f"{number(found['value'])} ± {number((found['high'] - found['low']) / 2)}"
