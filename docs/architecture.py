"""Draw docs/architecture.svg from the imports: `python docs/architecture.py`, anywhere in the repository.

Packages stand in the layers of pyproject.toml. An arrow means "imports"; one that other arrows imply is left out.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
COLUMNS = {"tasks": 0, "journal": 0, "training": 1, "config": 1, "influence": 3, "analysis": 4, "report": 4}
COLUMNS |= {"determinism": 4.9}
"""Where a box stands in its layer; 2, the middle, if it is not here."""
WIDTH, HEIGHT, PITCH_X, PITCH_Y, LEFT, TOP, BEND, TIP = 138, 42, 156, 78, 86, 34, 26, 8
Edges = set[tuple[str, str]]


def layers() -> list[list[str]]:
    """Packages from the top down, those of one layer side by side."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    below = next(contract["layers"] for contract in contracts if contract.get("containers") == ["holdfast"])
    return [["flows"], ["tasks"], *([name.strip() for name in layer.split("|")] for layer in below)]


def package(module: str) -> str:
    """The box of a module; empty for `holdfast` itself and its __main__."""
    top, *below = module.split(".")
    return top if top != "holdfast" else (below[0] if below and below[0] != "__main__" else "")


def imports() -> Edges:
    """Pairs of packages of which the first imports the second, without what longer ways imply."""
    sys.path.insert(0, str(ROOT))
    graph = grimp.build_graph("flows", "tasks", "holdfast", cache_dir=None)
    found: dict[str, set[str]] = {}
    for module in graph.modules:
        others = {package(other) for other in graph.find_modules_directly_imported_by(module)}
        found.setdefault(package(module), set()).update(others - {package(module), ""})
    found.pop("", None)

    def reached(name: str) -> set[str]:
        return found[name].union(*(reached(other) for other in found[name]))

    return {
        (name, other)
        for name, others in found.items()
        for other in others
        if not any(other in reached(between) for between in others - {other})
    }


def size(name: str) -> str:
    """How many modules a package has."""
    place = ROOT / name if name in ("flows", "tasks") else ROOT / "holdfast" / name
    found = place.rglob("*.py") if place.is_dir() else [place.with_suffix(".py")]
    files = [file for file in found if file.stat().st_size]
    return f"{len(files)} module{'s' if len(files) > 1 else ''}"


def arrow(start: tuple[float, int], end: tuple[float, int], shift: float, boxes: set[tuple[float, int]]) -> str:
    """Down the column of its start and then across, or the other way round where a box stands in between."""
    x1, x2 = LEFT + start[0] * PITCH_X + shift, LEFT + end[0] * PITCH_X + shift / 2
    y1, y2 = TOP + start[1] * PITCH_Y + HEIGHT / 2, TOP + end[1] * PITCH_Y - HEIGHT / 2 - TIP
    blocked = any((start[0], row) in boxes for row in range(start[1] + 1, end[1]))
    turn = y1 + BEND if blocked else y2 - BEND
    first, last = (y1, turn) if blocked else (turn, y2)
    curve = f"C{x1:g},{last:g} {x2:g},{first:g} {x2:g},{last:g}"
    return f'<path d="M{x1:g},{y1:g} V{first:g} {curve} V{y2:g}" marker-end="url(#tip)"/>'


def box(name: str, x: float, y: float) -> str:
    """A package with its name and its size."""
    return (
        f'<rect x="{x - WIDTH / 2:g}" y="{y - HEIGHT / 2:g}" width="{WIDTH}" height="{HEIGHT}" rx="6"/>'
        f'<text x="{x:g}" y="{y - 3:g}" class="name">{name}</text><text x="{x:g}" y="{y + 13:g}">{size(name)}</text>'
    )


def drawing() -> str:
    """The whole SVG; the same for the same sources."""
    rows = layers()
    places = {name: (COLUMNS.get(name, 2), row) for row, names in enumerate(rows) for name in names}
    edges = sorted(imports())
    arrows = []
    for name in places:
        others = sorted((other for start, other in edges if start == name), key=lambda other: places[other][::-1])
        for number, other in enumerate(others):
            shift = 14 * (number - (len(others) - 1) / 2)
            arrows.append(arrow(places[name], places[other], shift, set(places.values())))
    boxes = [box(name, LEFT + x * PITCH_X, TOP + y * PITCH_Y) for name, (x, y) in places.items()]
    width, height = LEFT * 2 + 4.9 * PITCH_X, TOP * 2 + (len(rows) - 1) * PITCH_Y
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" font-family="sans-serif">
<title>Packages and what they import</title>
<style>rect{{fill:#eef3f8;stroke:#3b5b7a}} path{{fill:none;stroke:#7a8896;stroke-width:1.4}}
text{{font-size:11px;text-anchor:middle;fill:#333}} .name{{font-size:14px;font-weight:bold}} #tip path{{fill:#7a8896}}
.page{{fill:#fff;stroke:none}}</style>
<defs><marker id="tip" viewBox="0 0 6 6" refX="1" refY="3" markerWidth="6" markerHeight="6" orient="90">
<path d="M0,0 L6,3 L0,6 z"/></marker></defs>
<rect class="page" width="{width:g}" height="{height:g}"/>
{chr(10).join([*arrows, *boxes])}
</svg>
"""


if __name__ == "__main__":
    (ROOT / "docs" / "architecture.svg").write_text(drawing())
