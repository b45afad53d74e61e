"""What was run: the stages' settings, where sampled completions came from, the runs' notes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from holdfast.benchmarks.targets.protocol import described
from holdfast.config.jobs import Compare, FinishedStudy, Result, RunRecord
from holdfast.config.methods import GRPO, SFT
from holdfast.report.words import fact, number

SAMPLED = ("model", "step", "temperature", "seed")
Row = dict[str, Any]


def run_section(job: Compare, settings: dict[str, FinishedStudy]) -> Row:
    """What was run; `settings` has the first study of each."""
    first = next(iter(settings.values()))
    return {
        "studies": [_study(name, study) for name, study in settings.items()],
        "stages": {arm: [_stage(stage) for stage in stages] for arm, stages in first.study.arms.items()},
        "samples": [_samples(run) for run in _runs(job) if run.kind == "sample"],
        "notes": list(dict.fromkeys(_notes(job))),
        "failed": job.failed,
        "other_seconds": sum(run.seconds for run in _runs(job) if run.kind != "train"),
    }


def _stage(stage: SFT | GRPO) -> Row:
    arguments = dict(stage.trainer)
    rate = arguments.pop("learning_rate", None)
    if isinstance(stage, GRPO):
        source = "own rollouts, rewarded"
        terms = (f"{term.weight:g} {name}" for name, term in stage.rewards.items() if term.weight)
        arguments["rewards"] = " + ".join(terms)
    else:
        source = stage.source.kind
        if stage.source.kind == "rollouts":
            source = f"rollouts of {stage.source.arm} ({stage.source.keep}, step {stage.source.step})"
        if stage.select is not None:
            source += f", {number(100 * stage.select.keep, 0)} % selected by {stage.select.by}"
    return {
        "method": stage.method.upper(),
        "source": source,
        "learning_rate": "default" if rate is None else f"{float(rate):g}",
        "weights": "LoRA" if stage.lora is not None else "full",
        "frozen": ", ".join(stage.freeze) or "nothing",
        "arguments": ", ".join(f"{key} {value}" for key, value in arguments.items()),
    }


def _study(setting: str, one: FinishedStudy) -> Row:
    model = one.study.model
    return {
        "setting": setting or one.study.name,
        "target": described(one.study.target),
        "prior": ", ".join(prior.name for prior in one.study.prior),
        "base": " ".join(filter(None, [model.path, model.revision, model.dtype])),
        "seed": one.study.seed,
        "data": one.data.digest,
        "certificate": one.certificate,
    }


def _notes(job: Compare) -> Iterator[tuple[str, str, str]]:
    """Of all runs: run, fact, value."""
    for run in _runs(job):
        file = Path(run.path) / "result.json"
        notes = Result.model_validate_json(file.read_text()).notes if file.is_file() else {}
        name = " ".join(filter(None, [run.kind, run.arm, f"replicate {run.replicate}" if run.replicate > 1 else ""]))
        yield from ((name, key.replace("_", " "), fact(value)) for key, value in notes.items() if key != "flips")


def _runs(job: Compare) -> list[RunRecord]:
    """Of all studies, those that several share once."""
    return list({run.path: run for study in job.studies for run in study.runs}.values())


def _samples(run: RunRecord) -> Row:
    """Where the completions that an arm learned from were sampled."""
    rows = pq.read_table(Path(run.path) / "samples.parquet", columns=[*SAMPLED, "accuracy", "id"]).to_pandas()
    return {
        "arm": run.arm,
        "replicate": run.replicate,
        "completions": len(rows),
        "questions": rows.id.nunique(),
        "right": rows.accuracy.mean(),
        **{name: sorted(rows[name].dropna().unique().tolist()) for name in SAMPLED},
    }
