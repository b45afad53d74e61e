"""One look for all figures: colours, marks, type, and how a figure is saved as SVG, PDF and CSV.

Figures are drawn by matplotlib in the colours of the light theme. In SVG every colour is then a CSS variable, so the
same figure serves a light page, a dark one and print. Text stays text; the bytes depend on the data alone.
"""

from __future__ import annotations

import io
import re
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import pandas as pd
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

PAPER, INK, SOFT, FAINT, WASH = "#ffffff", "#1b1f24", "#5b6570", "#dfe3e8", "#f5f7f9"
RIGHT, WRONG = "#00795c", "#b8460e"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6a4fb3", "#6b6f76")
"""Okabe and Ito's palette without its yellow and black, which white and black paper swallow, and two more."""
MARKERS, SIGNS = ("o", "s", "^", "D", "v", "P", "X", "*"), "●■▲◆▼✚✖★"
LINES = ("-", (0, (5, 2)), (0, (1, 1.5)))
"""Beyond the palette, colours come again with another stroke."""
VARIABLES = {
    **{PAPER: "paper", INK: "ink", SOFT: "soft", FAINT: "faint", WASH: "wash", RIGHT: "right", WRONG: "wrong"},
    **{color: f"c{index}" for index, color in enumerate(SERIES)},
}
DARK = {
    **{"paper": "#14171b", "ink": "#e6e9ed", "soft": "#9aa4af", "faint": "#323941", "wash": "#1c2127"},
    **{"right": "#35c79b", "wrong": "#ff9052"},
    **{"c0": "#58b0f0", "c1": "#ff8c42", "c2": "#35c79b", "c3": "#e7a3cd", "c4": "#f0b93a", "c5": "#9bd8fa"},
    **{"c6": "#ab97ec", "c7": "#adb4bd"},
}
SCALE = 1.3
"""Pixels of the page for a point of the figure: type of 9.5 points is as large as a table's."""
FONT = 'Inter, "Segoe UI", system-ui, -apple-system, "Helvetica Neue", Arial, sans-serif'
STYLE: dict[Any, Any] = {
    **{"svg.fonttype": "none", "pdf.fonttype": 42, "text.parse_math": False},
    **{"font.family": "DejaVu Sans", "font.size": 9.5, "text.color": INK},
    **{"axes.labelcolor": INK, "axes.edgecolor": SOFT, "axes.facecolor": "none", "axes.linewidth": 0.8},
    **{"axes.spines.top": False, "axes.spines.right": False},
    **{"axes.titlesize": 9.5, "axes.titlelocation": "left", "axes.titleweight": "bold", "axes.labelsize": 9.5},
    **{"axes.grid": True, "axes.axisbelow": True, "axes.unicode_minus": True},
    **{"grid.color": FAINT, "grid.linewidth": 0.8},
    **{"xtick.color": SOFT, "xtick.labelsize": 8.5, "xtick.major.size": 3},
    **{"ytick.color": SOFT, "ytick.labelsize": 8.5, "ytick.major.size": 0},
    **{"legend.frameon": False, "legend.fontsize": 9, "legend.handlelength": 1.8},
    **{"lines.linewidth": 1.6, "lines.markersize": 5},
    "hatch.linewidth": 1.2,
    "figure.facecolor": PAPER,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.06,
    "figure.constrained_layout.w_pad": 0.06,
}


class Look(NamedTuple):
    """How a series is drawn, the same in every figure: colour is never the only difference."""

    color: str
    marker: str
    line: Any


def look(index: int) -> Look:
    """Of the series with this number."""
    return Look(SERIES[index % len(SERIES)], MARKERS[index % len(MARKERS)], LINES[index // len(SERIES) % len(LINES)])


def style() -> AbstractContextManager[None]:
    """The theme, for as long as figures are drawn in it."""
    return matplotlib.rc_context(STYLE)


def legend(figure: Figure, looks: dict[str, Look]) -> None:
    """The key to all series, above the figure."""
    handles = [
        Line2D([], [], color=one.color, marker=one.marker, linestyle=one.line, label=name)
        for name, one in looks.items()
    ]
    # A label that begins with an underscore would be left out.
    names = [f"\u200b{name}" if name.startswith("_") else name for name in looks]
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
        svg = themed(text.getvalue(), name, title)
        alone = svg.replace(">", f' xmlns="http://www.w3.org/2000/svg" {LINKS}><style>{sheet()}</style>', 1)
        (self.path / f"{name}.svg").write_text(alone + "\n", encoding="utf-8")
        self.drawn[name] = Markup(svg)


LINKS = 'xmlns:xlink="http://www.w3.org/1999/xlink"'


def themed(text: str, name: str, title: str) -> str:
    """matplotlib's SVG with colours as CSS variables, the page's type, ids of its own, and a name to be read aloud."""
    body = text[text.index(">", text.index("<svg")) + 1 :].strip()
    width, height = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text).groups()  # type: ignore[union-attr]
    body = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", body, flags=re.DOTALL)
    used = set(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", body))
    body = re.sub(r' id="([^"]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", body)
    body = re.sub(r"(url\(#|href=\"#)", rf"\g<1>{name}-", body)
    body = re.sub(r"font: ([^;\"]*?)'DejaVu Sans'[^;\"]*", r"font: \1var(--font, sans-serif)", body)
    body = re.sub(r"#[0-9a-f]{6}\b", lambda m: f"var(--{VARIABLES[m[0]]}, {m[0]})" if m[0] in VARIABLES else m[0], body)
    body = re.sub(r"\s*\n\s*", "\n", body)
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" width="{SCALE * float(width):.0f}" role="img" '
        f'aria-label="{escape(title)}">{body}'
    )


def sheet() -> str:
    """The variables of both themes, for an SVG that stands alone."""
    light = "".join(f"--{variable}:{color};" for color, variable in VARIABLES.items())
    dark = "".join(f"--{variable}:{color};" for variable, color in DARK.items())
    family = FONT.replace('"', "'")
    return f":root{{{light}--font:{family}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}"


def swatch(one: Look) -> Markup:
    """The key to a series inside the page's text."""
    sign = SIGNS[MARKERS.index(one.marker)]
    return Markup(f'<i class="swatch" style="color:var(--{VARIABLES[one.color]})" aria-hidden="true">{sign}</i>')
