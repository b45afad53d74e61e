"""Trainings and their alarms as rows, read from the journals that they left."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from holdfast.analysis.settings import Place
from holdfast.config.jobs import Evaluated, FinishedStudy, RunRecord
from holdfast.journal import METRICS, read_lines

WHOSE = ("study", "setting", "draw", "arm", "replicate", "stage")
TRAININGS = (*WHOSE, "run_id", "path", "seconds", "steps", "method", "source", "alarms")
ALARMS = (*WHOSE, "step", "alarm", "sentence")


def read_trainings(studies: Sequence[FinishedStudy], places: Sequence[Place]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`Tables.trainings` and `Tables.alarms`, in the order of the files' arms."""
    rows: list[dict[str, Any]] = []
    alarms: list[dict[str, Any]] = []
    for study, place in zip(studies, places, strict=True):
        arms = study.study.arms
        order = {arm: index for index, arm in enumerate(arms)}
        trained = [run for run in study.runs if run.kind == "train" and run.arm in order]
        for run in sorted(trained, key=lambda run: (order[str(run.arm)], run.replicate, run.stage)):
            own, lines = whose(run), journal(run)
            gone_off = [place.columns | own | line for line in lines if "alarm" in line]
            evaluated = [one.step for one in study.evaluated if whose(one) == own]
            stage = arms[str(run.arm)][run.stage]
            rows.append(
                place.columns
                | own
                | run.model_dump(include={"run_id", "path", "seconds"})
                | {"steps": max([0, *evaluated, *(line["step"] for line in lines if "step" in line)])}
                | {"method": stage.method, "source": stage.source.kind if stage.method == "sft" else stage.method}
                | {"alarms": len(gone_off)}
            )
            alarms += gone_off
    trainings = pd.DataFrame(rows, columns=TRAININGS)
    steps = trainings.groupby(["study", "arm", "replicate"], sort=False)["steps"]
    return trainings.assign(offset=steps.cumsum() - trainings["steps"]), pd.DataFrame(alarms, columns=ALARMS)


def whose(run: RunRecord | Evaluated) -> dict[str, Any]:
    """Arm, replicate and stage of a run, or of a file that an evaluation left."""
    return {"arm": run.arm, "replicate": run.replicate, "stage": run.stage}


def journal(run: RunRecord) -> list[dict[str, Any]]:
    """All lines of a run's journal; none where it left none."""
    path = Path(run.path) / METRICS
    return read_lines(path) if path.is_file() else []
