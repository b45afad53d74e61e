"""The figures of a sweep: accuracy against training questions and against length, and what training logged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from markupsafe import Markup

from holdfast.analysis.records import ArmRun, read_metrics
from holdfast.analysis.sweep_runs import Layout, Model, Series
from holdfast.report import charts
from holdfast.report.charts import Frame, Level, Scale

LENGTH, REWARD = "train/completions/mean_length", "train/reward"
BINS = 40
"""Logged values of a training are averaged into so many points."""
DODGE = 4.0
"""Pixels between marks of neighbouring series, so that whiskers do not hide each other."""
Panel = dict[str, Any]


class Course(NamedTuple):
    """A metric over the share of an arm's training, and where alarms went off."""

    series: int
    name: str
    points: list[tuple[float, float]]
    alarms: list[tuple[float, str]]


def by_samples(panel: Panel, series: Sequence[Series]) -> Markup | None:
    """Accuracy against the number of training questions; None where the panel has one number alone."""
    counts = {column: count for column, count in panel["columns"].items() if count}
    if len(set(counts.values())) < 2:
        return None
    frame = Frame(540, 320, 36, 84, 26, 42)
    low, high = math.log10(min(counts.values())), math.log10(max(counts.values()))
    air = 0.06 * (high - low)
    x, y = frame.scales((low - air, high + air), (0, 1))
    ticks = {math.log10(count): str(count) for count in counts.values()}
    parts = [charts.axes(frame, x, y, ("training questions (logarithmic)", "target accuracy"), ticks)]
    parts.append(_drawn(frame, y, references(panel)))
    for index, row in enumerate(panel["rows"]):
        shift = DODGE * (index - (len(series) - 1) / 2)
        known = sorted((counts[column], cell) for column, cell in row["cells"].items() if cell and column in counts)
        parts.append(_line(index, row["series"], [(x(math.log10(n)) + shift, n, cell) for n, cell in known], y))
    return charts.svg(frame, parts, "Target accuracy against the number of training questions")


def references(panel: Panel) -> list[Level]:
    """Chance, and the base at every level of the series factors at which it differs; chance is of the score alone
    where answers get partial credit."""
    levels = [Level(None if panel["partial"] else panel["target"]["chance"], "chance")]
    seen: dict[float, str] = {}
    for base in panel["bases"]:
        if base["cell"]:
            name = " ".join(("base", *base["levels"]))
            seen.setdefault(round(base["cell"]["intervals"]["accuracy"]["value"], 2), name)
    alone = len(seen) == 1
    return levels + [Level(value, "base" if alone else name) for value, name in seen.items()]


def _drawn(frame: Frame, y: Scale, levels: Sequence[Level]) -> Markup:
    """Lines across the chart with their names in the right margin, moved apart."""
    known = [(level.value, level.name) for level in levels if level.value is not None]
    right = frame.width - frame.right
    heights = charts.spread([y(value) for value, _ in known], 14, frame.top + 4, frame.height - frame.bottom)
    return Markup("").join(
        charts.line(frame.left, y(value), right, y(value), "reference")
        + charts.text(right + 6, height + 4, charts.short(name, 14), "note")
        for (value, name), height in zip(known, heights, strict=True)
    )


def _line(index: int, name: str, known: Sequence[tuple[float, int, dict[str, Any]]], y: Scale) -> Markup:
    found = [(x, n, cell["intervals"]["accuracy"]) for x, n, cell in known]
    whiskers = [charts.line(x, y(one["low"]), x, y(one["high"]), "whisker") for x, _, one in found]
    curve = charts.path([(x, y(one["value"])) for x, _, one in found], "curve thin")
    marks = [
        Markup("<g>{}<title>{}</title></g>").format(
            charts.marker(index, x, y(one["value"])),
            f"{name}, {n} training questions: {one['value']:.3f} ({one['low']:.3f} to {one['high']:.3f})",
        )
        for x, n, one in found
    ]
    return Markup('<g class="{}">{}{}{}</g>').format(
        charts.series_class(index), Markup("").join(whiskers), curve, Markup("").join(marks)
    )


def by_length(panel: Panel) -> Markup | None:
    """Accuracy against the mean length of completions; marks grow with the column. None without any model."""
    cells = [
        (index, row["series"], column, size, cell)
        for index, row in enumerate(panel["rows"])
        for size, (column, cell) in enumerate(row["cells"].items())
        if cell
    ]
    bases = [base for base in panel["bases"] if base["cell"]]
    if not cells:
        return None
    frame = Frame(540, 320, 36, 84, 26, 42)
    longest = max([cell["tokens"] for *_, cell in cells] + [base["cell"]["tokens"] for base in bases])
    x, y = frame.scales((0, longest * 1.06), (0, 1))
    parts = [charts.axes(frame, x, y, ("mean length of a completion, tokens", "target accuracy"))]
    parts.append(_drawn(frame, y, references(panel)[:1]))
    parts += [_based(base, x, y) for base in bases]
    steps = len(panel["columns"]) - 1
    for index, name, column, size, cell in sorted(cells, key=lambda entry: -entry[3]):
        value = cell["intervals"]["accuracy"]["value"]
        mark = charts.marker(index, x(cell["tokens"]), y(value), 3 + 4 * size / steps if steps else 5)
        title = f"{name}{', ' + column if column else ''}: {cell['tokens']:.1f} tokens, accuracy {value:.3f}"
        parts.append(Markup('<g class="{}">{}<title>{}</title></g>').format(charts.series_class(index), mark, title))
    return charts.svg(frame, parts, "Target accuracy against the length of completions")


def _based(base: dict[str, Any], x: Scale, y: Scale) -> Markup:
    cell = base["cell"]
    value = cell["intervals"]["accuracy"]["value"]
    title = f"{base['name']}: {cell['tokens']:.1f} tokens, accuracy {value:.3f}"
    return Markup('<g class="base">{}<title>{}</title></g>').format(
        charts.marker(0, x(cell["tokens"]), y(value), 5), title
    )


def courses(layout: Layout, panel: str, column: str, metric: str) -> list[Course]:
    """Of every reinforced arm of a panel and column."""
    found = []
    for index, series in enumerate(layout.series):
        for model in layout.models(series.arm, series.levels, panel, column):
            points, alarms = _logged(_arm(layout, model), metric)
            if points:
                found.append(Course(index, series.name, points, alarms))
    return found


def _arm(layout: Layout, model: Model) -> ArmRun:
    return next(arm for arm in layout.settings[model.setting].finished.arms if arm.name == model.arm)


def _logged(arm: ArmRun, metric: str) -> tuple[list[tuple[float, float]], list[tuple[float, str]]]:
    """(share of the arm's steps, value), averaged within bins, and (share, sentence) of its alarms."""
    bins: dict[int, list[tuple[float, float]]] = {}
    begins, before = {}, 0
    for stage in arm.stages:
        begins[stage.record.stage] = before
        for step, metrics in read_metrics(Path(stage.record.path)).items():
            if math.isfinite(metrics.get(metric, math.nan)):
                share = (before + step) / max(arm.steps, 1)
                bins.setdefault(min(int(share * BINS), BINS - 1), []).append((share, metrics[metric]))
        before += stage.steps
    points = [(fmean(share for share, _ in bins[k]), fmean(value for _, value in bins[k])) for k in sorted(bins)]
    alarms = [((begins[a.stage] + a.step) / max(arm.steps, 1), f"step {a.step}, {a.name}") for a in arm.alarms]
    return points, alarms


def course(found: Sequence[Course], y_range: tuple[float, float], label: str) -> Markup:
    """A small chart of one metric over training; triangles at the bottom are alarms."""
    frame = Frame(252, 168, 34, 10, 20, 22)
    x, y = frame.scales((0, 1), y_range)
    parts = [charts.axes(frame, x, y, ("", label), {0: "0 %", 0.5: "50 %", 1: "100 %"})]
    for one in found:
        curve = charts.path([(x(share), y(value)) for share, value in one.points], "curve")
        marks = [
            Markup("<g>{}<title>{}</title></g>").format(
                charts.marker(2, x(share), frame.height - frame.bottom - 5, 4.5), f"{one.name}, {title}"
            )
            for share, title in one.alarms
        ]
        ends = [charts.marker(one.series, x(share), y(value), 3) for share, value in one.points[-1:]]
        parts.append(
            Markup('<g class="{}">{}{}</g>').format(
                charts.series_class(one.series), curve, Markup("").join([*ends, *marks])
            )
        )
    return charts.svg(frame, parts, f"{label} along training")


def shared(found: Sequence[Course]) -> tuple[float, float]:
    """One range for all small charts of a metric, from 0 on."""
    values = [value for one in found for _, value in one.points]
    return min(0.0, min(values)), max(1e-9, max(values) * 1.08)


def bar(found: dict[str, float], reach: float) -> Markup:
    """A difference with its interval, on an axis from −reach to reach."""
    frame = Frame(120, 14, 0, 0, 0, 0)
    x = Scale(-reach, reach, 2, 118)
    parts = [
        charts.line(x(0), 0, x(0), 14, "zero"),
        charts.line(x(found["low"]), 7, x(found["high"]), 7, "span"),
        charts.marker(0, x(found["value"]), 7, 3.2),
    ]
    return charts.svg(frame, parts, "difference with its interval")
