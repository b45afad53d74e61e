"""Trainings and their alarms as rows, read from the journals that they left."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from holdfast.analysis.settings import Place
from holdfast.config.jobs import FinishedStudy, RunRecord
from holdfast.journal import METRICS, read_lines

TRAININGS = (
    *("study", "setting", "draw", "arm", "replicate", "stage", "run_id", "path", "seconds", "steps", "offset"),
    *("method", "source", "alarms"),
)
ALARMS = ("study", "setting", "draw", "arm", "replicate", "stage", "step", "alarm", "sentence")


def read_trainings(studies: Sequence[FinishedStudy], places: Sequence[Place]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`Tables.trainings` and `Tables.alarms`."""
    rows: list[dict[str, Any]] = []
    alarms: list[dict[str, Any]] = []
    for study, place in zip(studies, places, strict=True):
        for run in _in_order(study):
            whose = {"study": place.study, "setting": place.setting, "draw": place.draw} | {
                name: getattr(run, name) for name in ("arm", "replicate", "stage")
            }
            lines = journal(run)
            gone_off = [line for line in lines if "alarm" in line]
            alarms += [whose | {name: line[name] for name in ("step", "alarm", "sentence")} for line in gone_off]
            rows.append(whose | _training(study, run, lines) | {"alarms": len(gone_off)})
    trainings = pd.DataFrame(rows, columns=[name for name in TRAININGS if name != "offset"])
    if len(trainings):
        before = trainings.groupby(["study", "arm", "replicate"], sort=False)["steps"]
        trainings["offset"] = before.cumsum() - trainings["steps"]
    return trainings.reindex(columns=TRAININGS), pd.DataFrame(alarms, columns=ALARMS)


def _in_order(study: FinishedStudy) -> list[RunRecord]:
    """Trainings of the arms of the file, in its order."""
    place = {arm: index for index, arm in enumerate(study.study.arms)}
    trained = [run for run in study.runs if run.kind == "train" and run.arm in place]
    return sorted(trained, key=lambda run: (place[str(run.arm)], run.replicate, run.stage))


def journal(run: RunRecord) -> list[dict[str, Any]]:
    """All lines of a run's journal; none where it left none."""
    path = Path(run.path) / METRICS
    return read_lines(path) if path.is_file() else []


def _training(study: FinishedStudy, run: RunRecord, lines: Iterable[dict[str, Any]]) -> dict[str, Any]:
    stage = study.study.arms[str(run.arm)][run.stage]
    evaluated = [
        one.step
        for one in study.evaluated
        if (one.arm, one.replicate, one.stage) == (run.arm, run.replicate, run.stage)
    ]
    return {
        "run_id": run.run_id,
        "path": run.path,
        "seconds": run.seconds,
        "steps": max([0, *evaluated, *(line["step"] for line in lines if "step" in line)]),
        "method": stage.method,
        "source": stage.source.kind if stage.method == "sft" else stage.method,
    }
