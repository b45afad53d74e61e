"""What one run of a study did, on its MLflow run: a note with links, and stages.json for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping

from flows.graph import Runs
from holdfast.errors import LONGEST, reason
from tasks.stage import Context, StageRun
from tasks.tracking import open_store


def write_run_note(runs: Runs, failed: Mapping[str, Exception], refused: Mapping[str, str], context: Context) -> None:
    """Write the note and stages.json. `refused` has the aliases that the registry did not take, and why."""
    store = open_store(context.root)
    experiment = store.experiment(context.study.experiment)
    stages = [
        run.model_dump(
            mode="json", include={"kind", "arm", "replicate", "stage", "run_id", "digest", "found", "seconds"}
        )
        for run in runs
    ]
    store.text(context.study_run, json.dumps(stages, indent=1), "stages.json")
    store.tag(context.study_run, {"mlflow.note.content": _note(runs, failed, refused, experiment)})


def _note(runs: Runs, failed: Mapping[str, Exception], refused: Mapping[str, str], experiment: str) -> str:
    lines = ["The report is `report.html` under Artifacts.", "", "| stage | seconds | |", "|---|---|---|"]
    for run in runs:
        link = f"[{_name(run)}](#/experiments/{experiment}/runs/{run.run_id})"
        lines.append(f"| {link} | {run.seconds:.0f} | {'found' if run.found else 'ran'} |")
    lines += [f"| {arm} | | failed: {reason(error, LONGEST)} |" for arm, error in failed.items()]
    lines += [f"\nThe model registry did not take the alias `{alias}`: {why}" for alias, why in refused.items()]
    return "\n".join(lines)


def _name(run: StageRun) -> str:
    if run.arm is None:
        return run.kind
    replicate = f" r{run.replicate}" if run.replicate > 1 else ""
    return f"{run.kind} {run.arm}{replicate}" + (f" {run.stage}" if run.stage else "")
