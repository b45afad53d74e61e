"""What one run of a study did, on its MLflow run: a note with links, and stages.json for programs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import NamedTuple

from flows.graph import Runs
from flows.jobs import failure_reasons
from tasks.stage import Context, StageRun
from tasks.tracking import open_store

MARKUP = re.compile(r"([\\`*_{}\[\]()<>#!|~&])")


class RunNote(NamedTuple):
    """What is said about a study that ended."""

    runs: Runs
    failed: Mapping[str, Exception]
    refused: Mapping[str, str]
    """The aliases that the registry did not take, and why."""
    certificate: str


def write_run_note(told: RunNote, context: Context) -> None:
    """Write the note and stages.json."""
    store = open_store(context.root)
    experiment = store.experiment(context.study.experiment)
    stages = [
        run.model_dump(
            mode="json", include={"kind", "arm", "replicate", "stage", "run_id", "digest", "found", "seconds"}
        )
        for run in told.runs
    ]
    store.artifacts.text(context.study_run, json.dumps(stages, indent=1), "stages.json")
    store.tag(context.study_run, {"mlflow.note.content": _note(told, experiment)})


def _note(told: RunNote, experiment: str) -> str:
    lines = ["The report is `report.html` under Artifacts.", "", "| stage | seconds | |", "|---|---|---|"]
    for run in told.runs:
        link = f"[{_name(run)}](#/experiments/{experiment}/runs/{run.run_id})"
        lines.append(f"| {link} | {run.seconds:.0f} | {'found' if run.found else 'ran'} |")
    lines += [f"| {arm} | | failed: {_plain(why)} |" for arm, why in failure_reasons(told.failed).items()]
    lines += [
        f"\nThe model registry did not take the alias `{alias}`: {_plain(why)}" for alias, why in told.refused.items()
    ]
    lines.append(
        f"\nCertificate `{told.certificate}`; `holdfast verify` checks it, `holdfast reproduce` repeats the study."
    )
    return "\n".join(lines)


def _plain(text: str) -> str:
    """A text that Markdown shows as it is: a reason may quote a data set or a completion."""
    return MARKUP.sub(r"\\\1", " ".join(text.split()))


def _name(run: StageRun) -> str:
    if run.arm is None:
        return run.kind
    replicate = f" r{run.replicate}" if run.replicate > 1 else ""
    return f"{run.kind} {run.arm}{replicate}" + (f" {run.stage}" if run.stage else "")
