"""Several targets learned one after the other: the matrix A[row, task], and what the literature measures in it.

Row 0 is the base, row j what each task scores after the j-th target has been learned; stages that follow each other on
one target are one row. Every measure is a sum of the matrix's cells with weights, which depend on the matrix only
where a best row is looked for. So its interval is that of a weighted mean, with the best row of each replicate as
given: a maximum of noisy cells is too high on average, and forgetting by it too large.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from holdfast.analysis.answers import Answers, Checkpoint
from holdfast.analysis.contrasts import Named, Row, Setting
from holdfast.analysis.estimates import Moments, estimate, weighted

SOURCES = {
    "MFT": "MCITlib",
    "MFN": "MCITlib",
    "MAA": "MCITlib",
    "BWT": "MCITlib, Avalanche",
    "max forgetting": "Chaudhry et al. 2018",
    "forgetting": "Avalanche",
    "FWT": "Avalanche",
    "FM": "Lai et al. 2025",
}
"""Who defines each measure so; docs/metrics.md has the formulas."""
FIELDS = {"accuracy": "correct", "score": "score"}
PATH = ["setting", "draw", "study", "arm", "replicate", "stage", "stage_step", "step", "learned", "ends"]
COURSE = [*PATH, "benchmark", "role", *(f"{name}{end}" for name in FIELDS for end in ("", "_low", "_high"))]
MEASURES = ["setting", "arm", "measure", "source", "value", "low", "high", "replicates", "covers"]


def weights(matrix: np.ndarray, learned: Sequence[int]) -> dict[str, np.ndarray]:
    """Of every measure of T tasks, what each cell of the matrix (rows, T) counts; none for which there is no task.

    `learned` has the row of each task after which it was learned, from 1.
    """
    last, tasks = len(matrix) - 1, range(len(learned))

    def cell(row: int, task: int) -> np.ndarray:
        found = np.zeros(matrix.shape)
        found[row, task] = 1
        return found

    def best(task: int, rows: range) -> np.ndarray:
        return cell(rows[int(np.argmax(matrix[rows.start : rows.stop, task]))], task)

    seen = {row: [cell(row, task) for task in tasks if learned[task] <= row] for row in range(1, last + 1)}
    earlier, later = ([i for i in tasks if learned[i] < last], [i for i in tasks if learned[i] > 1])
    terms = {
        "MFT": [cell(learned[i], i) for i in tasks],
        "MFN": [cell(last, i) for i in tasks],
        "MAA": [np.mean(cells, axis=0) for cells in seen.values()],
        "BWT": [cell(last, i) - cell(learned[i], i) for i in earlier],
        "max forgetting": [best(i, range(1, last)) - cell(last, i) for i in earlier],
        "forgetting": [cell(learned[i], i) - cell(last, i) for i in earlier],
        "FWT": [cell(learned[i] - 1, i) - cell(0, i) for i in later],
        "FM": [cell(last, i) - best(i, range(1, last + 1)) for i in tasks],
    }
    return {name: np.mean(cells, axis=0) for name, cells in terms.items() if cells}


def learning(draw: Answers, arm: str) -> list[str]:
    """The target of each stage of an arm."""
    return [draw.study.learned_by(stage) for stage in draw.study.arms[arm]]


def stage_ends(path: Sequence[Checkpoint]) -> list[Checkpoint]:
    """Of one replicate's checkpoints, the last of every stage."""
    return list({one.stage: one for one in path}.values())


def measures(draw: Answers, arm: str) -> Named:
    """Every measure over an arm's replicates, in the scores of the targets that it learns."""
    order = learning(draw, arm)
    blocks = [stage for stage, name in enumerate(order) if order[stage + 1 : stage + 2] != [name]]
    rows = [order[stage] for stage in blocks]
    tasks = list(dict.fromkeys(rows))
    ends = [stage_ends(path) for path in draw.paths(arm)]
    at = [[draw.base], *([end[stage] for end in ends] for stage in blocks)]
    grid = [[draw.mean(draw.values(row, "score"), [task]) for task in tasks] for row in at]
    means = np.stack([[np.broadcast_to(one.means, len(ends)) for one in row] for row in grid])
    own = [weights(means[..., number], [1 + rows.index(task) for task in tasks]) for number in range(len(ends))]
    return {name: _sum(np.stack([one[name] for one in own], -1), grid) for name in own[0]}


def _sum(counts: np.ndarray, grid: Sequence[Sequence[Moments]]) -> Moments:
    """Σ counts · cells; `counts` are (rows, tasks, replicates)."""
    # Cells that cancel in every replicate leave 0.
    places = np.argwhere(counts.any(-1)).tolist() or [[0, 0]]
    return weighted([(counts[row, task], grid[row][task]) for row, task in places])


def continual(settings: Sequence[Setting]) -> pd.DataFrame:
    """`Analysis.continual`."""
    found: list[Row] = []
    for setting, arm in _sequences(settings):
        for name, moments in setting.pooled(partial(measures, arm=arm), arm).items():
            own = estimate(moments)
            row = {"setting": setting.name, "arm": arm, "measure": name, "source": SOURCES[name]}
            found.append(row | {key: getattr(own, key) for key in MEASURES[4:]})
    return pd.DataFrame(found, columns=MEASURES)


def courses(settings: Sequence[Setting]) -> pd.DataFrame:
    """`Analysis.courses`."""
    rows = [row for setting, arm in _sequences(settings) for row in _course(setting, arm)]
    return pd.DataFrame(rows, columns=COURSE)


def _sequences(settings: Sequence[Setting]) -> list[tuple[Setting, str]]:
    """Trained arms of studies that have several targets."""
    return [(setting, arm) for setting in settings if setting.draws[0].study.targets for arm in setting.arms]


def _course(setting: Setting, arm: str) -> Iterator[Row]:
    for draw in setting.having(arm):
        for path in draw.paths(arm):
            at = {"setting": setting.name, "draw": draw.place.draw, "study": draw.place.study, "arm": arm}
            for one in [draw.base, *path]:
                values = {name: draw.means(one, field) for name, field in FIELDS.items()}
                about = at | {"replicate": str(path[0].replicate)} | _where(draw, arm, one, path)
                for number, name in enumerate(draw.benchmarks):
                    row = {measure: own[number] for measure, own in values.items()}
                    yield about | {"benchmark": name, "role": draw.role(name)} | row
    first = setting.having(arm)[0]
    at = {"setting": setting.name, "draw": "", "study": "", "arm": arm, "replicate": "mean"}
    for one, _ in setting.course(arm):
        for name in first.benchmarks:
            found = setting.pooled(partial(_at, arm=arm, step=one.step, benchmark=name), arm)
            row = at | _where(first, arm, one, first.paths(arm)[0]) | {"benchmark": name, "role": first.role(name)}
            for measure, own in ((measure, estimate(moments)) for measure, moments in found.items()):
                row |= {measure: own.value, f"{measure}_low": max(own.low, 0), f"{measure}_high": min(own.high, 1)}
            yield row


def _where(draw: Answers, arm: str, one: Checkpoint, path: Sequence[Checkpoint]) -> dict[str, Any]:
    steps = {name: getattr(one, name) for name in ("stage", "stage_step", "step")}
    learned = learning(draw, arm)[one.stage] if one.step else ""
    return steps | {"learned": learned, "ends": not one.step or one in stage_ends(path)}


def _at(draw: Answers, arm: str, step: int, benchmark: str) -> Named:
    own = [one for path in draw.paths(arm) for one in path if one.step == step] if step else [draw.base]
    return {name: draw.mean(draw.values(own, field), [benchmark]) for name, field in FIELDS.items()}
