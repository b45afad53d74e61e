"""One look for all figures: colours, marks, type, and how a figure is saved as SVG, PDF and CSV.

Figures are drawn by matplotlib in the colours of the light theme. In SVG every colour is then a CSS variable, so the
same figure serves a light page, a dark one and print. Text stays text; the bytes depend on the data alone.
"""

from __future__ import annotations

import io
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import pandas as pd
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

STYLE = Path(__file__).with_name("figures.mplstyle")
SHEET = Path(__file__).with_name("colors.css").read_text(encoding="utf-8")
"""The variables of both themes."""
LIGHT = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", SHEET.partition("@media")[0]))
"""The colour of each."""
VARIABLES = {color: name for name, color in LIGHT.items()}
PAPER, INK, SOFT, FAINT, RIGHT, WRONG = (LIGHT[name] for name in ("paper", "ink", "soft", "faint", "right", "wrong"))
SERIES = [LIGHT[f"c{number}"] for number in range(8)]
MARKERS, SIGNS = ("o", "s", "^", "D", "v", "P", "X", "*"), "●■▲◆▼✚✖★"
LINES = ("-", (0, (5, 2)), (0, (1, 1.5)))
"""Beyond the palette, colours come again with another stroke."""
SCALE = 1.3
"""Pixels of the page for a point of the figure: type of 9.5 points is as large as a table's."""


class Look(NamedTuple):
    """How a series is drawn, the same in every figure: colour is never the only difference."""

    color: str
    marker: str
    line: Any


def look(index: int) -> Look:
    """Of the series with this number."""
    return Look(SERIES[index % len(SERIES)], MARKERS[index % len(MARKERS)], LINES[index // len(SERIES) % len(LINES)])


def legend(figure: Figure, looks: dict[str, Look], shown: Collection[str] | None = None) -> None:
    """The key to all series, or to those that are shown, above the figure."""
    own = {name: one for name, one in looks.items() if shown is None or name in shown}
    handles = [Line2D([], [], color=one.color, marker=one.marker, linestyle=one.line) for one in own.values()]
    # A label that begins with an underscore would be left out.
    names = [f"\u200b{name}" if name.startswith("_") else name for name in own]
    fitting = max(1, 100 // (max(map(len, names), default=0) + 7))
    figure.legend(handles, names, loc="outside upper left", ncols=min(fitting, len(names)), columnspacing=1.6)


class Folder:
    """Where a report's figures are saved."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.drawn: dict[str, Markup] = {}
        path.mkdir(parents=True, exist_ok=True)

    def save(self, name: str, title: str, data: pd.DataFrame, figure: Figure) -> None:
        """Write NAME.svg, NAME.pdf and NAME.csv, and keep the SVG as it stands in the page."""
        with matplotlib.rc_context({"svg.hashsalt": name}):
            text = io.StringIO()
            figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
        # Everything has its place now: the second drawing need not find it again.
        figure.set_layout_engine("none")
        figure.savefig(self.path / f"{name}.pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None})
        data.to_csv(self.path / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n")
        svg = themed(text.getvalue(), title)
        spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        alone = svg.replace(">", f" {spaces}><style>{SHEET}</style>", 1)
        (self.path / f"{name}.svg").write_text(alone + "\n", encoding="utf-8")
        self.drawn[name] = Markup(svg)


def themed(text: str, title: str) -> str:
    """matplotlib's SVG with colours as CSS variables, the page's type, the ids that it uses, and a name to read out."""
    body = text[text.index(">", text.index("<svg")) + 1 :].strip()
    width, height = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text).groups()  # type: ignore[union-attr]
    body = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", body, flags=re.DOTALL)
    used = set(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", body))
    body = re.sub(r' id="([^"]+)"', lambda m: m[0] if m[1] in used else "", body)
    body = re.sub(r"font: ([^;\"]*?)'DejaVu Sans'[^;\"]*", r"font: \1var(--font, sans-serif)", body)
    body = re.sub(r"#[0-9a-f]{6}\b", lambda m: f"var(--{VARIABLES[m[0]]}, {m[0]})" if m[0] in VARIABLES else m[0], body)
    body = re.sub(r"\s*\n\s*", "\n", body)
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" width="{SCALE * float(width):.0f}" role="img" '
        f'aria-label="{escape(title)}">{body}'
    )


def swatch(one: Look) -> Markup:
    """The key to a series inside the page's text."""
    sign = SIGNS[MARKERS.index(one.marker)]
    return Markup(f'<i class="swatch" style="color:var(--{VARIABLES[one.color]})" aria-hidden="true">{sign}</i>')
