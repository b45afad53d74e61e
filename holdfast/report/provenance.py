"""What was run: the stages' settings, where sampled completions came from, the runs' notes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from holdfast.benchmarks.targets.protocol import described
from holdfast.config.jobs import Compare, FinishedStudy, RunRecord
from holdfast.config.methods import GRPO, SFT
from holdfast.report.words import fact, number, scientific


class StageRow(NamedTuple):
    """The settings of a stage."""

    method: str
    source: str
    learning_rate: str
    weights: str
    frozen: str
    arguments: str


def stage_rows(study: FinishedStudy) -> dict[str, list[StageRow]]:
    """By arm."""
    return {arm: [_stage_row(stage) for stage in stages] for arm, stages in study.study.arms.items()}


def _stage_row(stage: SFT | GRPO) -> StageRow:
    arguments = dict(stage.trainer)
    rate = arguments.pop("learning_rate", None)
    source = "own rollouts, rewarded"
    if isinstance(stage, SFT):
        source = stage.source.kind
        if stage.source.kind == "rollouts":
            source = f"rollouts of {stage.source.arm} ({stage.source.keep}, step {stage.source.step})"
        if stage.select is not None:
            source += f", {number(100 * stage.select.keep, 0)} % selected by {stage.select.by}"
    else:
        terms = (f"{term.weight:g} {name}" for name, term in stage.rewards.items() if term.weight)
        arguments["rewards"] = " + ".join(terms)
    return StageRow(
        method=stage.method.upper(),
        source=source,
        learning_rate="default" if rate is None else scientific(float(rate)),
        weights="LoRA" if stage.lora is not None else "full",
        frozen=", ".join(stage.freeze) or "nothing",
        arguments=", ".join(f"{key} {value}" for key, value in arguments.items()),
    )


def study_rows(job: Compare) -> list[dict[str, Any]]:
    """One row a study: its levels, and what it was made of."""
    return [
        {
            "setting": setting(one),
            "name": one.study.name,
            "target": described(one.study.target),
            "prior": ", ".join(prior.name for prior in one.study.prior),
            "base": " ".join(filter(None, [one.study.model.path, one.study.model.revision, one.study.model.dtype])),
            "seed": one.study.seed,
            "replicates": one.study.replicates,
            "data": one.data.digest,
        }
        for one in job.studies
    ]


def setting(study: FinishedStudy) -> str:
    """The levels of a study's factors in one line; empty where nothing is varied."""
    return ", ".join(f"{factor}={level}" for factor, level in study.levels.items())


def notes(job: Compare) -> list[tuple[str, str, str]]:
    """Of all runs: (run, fact, value), each said once."""
    found = []
    for run in runs(job):
        name = " ".join(filter(None, [run.kind, run.arm, f"replicate {run.replicate}" if run.replicate > 1 else ""]))
        for key, value in _result(run).get("notes", {}).items():
            if key != "flips":
                found.append((name, key.replace("_", " "), fact(value)))
    return list(dict.fromkeys(found))


def runs(job: Compare) -> Iterator[RunRecord]:
    """Of all studies, those that several share once."""
    seen = set()
    for study in job.studies:
        for run in study.runs:
            if run.path not in seen:
                seen.add(run.path)
                yield run


def _result(run: RunRecord) -> dict[str, Any]:
    path = Path(run.path) / "result.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def samples(job: Compare) -> list[dict[str, Any]]:
    """Where the completions that arms learned from were sampled."""
    return [_samples(run) for run in runs(job) if run.kind == "sample"]


def _samples(run: RunRecord) -> dict[str, Any]:
    table = pq.read_table(Path(run.path) / "samples.parquet")
    rows = table.select(["model", "step", "temperature", "seed", "accuracy", "id"]).to_pylist()
    return {
        "arm": run.arm,
        "replicate": run.replicate,
        "completions": len(rows),
        "questions": len({row["id"] for row in rows}),
        "right": sum(row["accuracy"] for row in rows) / max(1, len(rows)),
        **{name: sorted({row[name] for row in rows}) for name in ("model", "step", "temperature", "seed")},
    }
