"""A stage's process: `python -m holdfast JOB.json OUT` runs one job and writes OUT/result.json last.

A mistake of the user's ends it with exit code 2 and OUT/error.json. Verbs import what they need when they run, so that
data is made and runs are compared without torch.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from holdfast.config.jobs import (
    STEPS,
    Account,
    AnyJob,
    AskTrial,
    Blend,
    BuildBase,
    Compare,
    Evaluate,
    Job,
    MakeData,
    Predict,
    Sample,
    Select,
    Trace,
    TraceTrial,
    Train,
    Trial,
)
from holdfast.config.jobs import Check as CheckJob
from holdfast.config.ranks import ALONE, Rank, announce, is_of_a_rank, require_one_rank
from holdfast.config.refs import directory_digest, known_digest, stamp_of
from holdfast.config.results import Checkpoint, Result
from holdfast.determinism import settle_torch, varying
from holdfast.errors import UserError
from holdfast.journal import METRICS, Journal, read_lines

UNKEPT = ("log.txt", "lock", "error.json", "result.json")
Notes = dict[str, Any]


def run_job(job_path: str, out: str, rank: Rank = ALONE) -> None:
    """Run the job of a file into a directory; a UserError becomes error.json and exit code 2.

    Of several ranks, the first alone writes the result.
    """
    started = time.monotonic()
    place = Path(out)
    place.mkdir(parents=True, exist_ok=True)
    job = TypeAdapter(AnyJob).validate_json(Path(job_path).read_text())
    if rank.number == 0 and not (place / "job.json").exists():
        # Later stages read there what this one was.
        (place / "job.json").write_text(job.model_dump_json(indent=1))
    try:
        require_one_rank()
        announce(rank)
        with varying() as operations:
            notes = run(job, place, rank)
    except UserError as error:
        said = rank.place(place) / "error.partial"
        said.write_text(json.dumps({"message": str(error)}))
        said.replace(place / "error.json")
        print(error, file=sys.stderr)
        sys.exit(2)
    if rank.number:
        return
    if operations:
        told = (
            f"no deterministic kernel here for {', '.join(sorted(operations))}; numbers may vary in their last digits"
        )
        notes["told"] = [*notes.get("told", []), told]
    # A resumed training counts the time of the processes before it.
    seconds = notes.pop("seconds", None) or time.monotonic() - started
    _write(place / "result.json", result(place, seconds, notes))


def run(job: Job, out: Path, rank: Rank = ALONE) -> Notes:
    """Do what the job says; returns facts worth keeping that are no metrics."""
    if isinstance(job, MakeData):
        from holdfast.benchmarks.dataset import make_data

        return make_data(job, out)
    if isinstance(job, Compare):
        from holdfast.report.study import compare

        return compare(job, out)
    settle_torch(job.threads)
    from holdfast.group import joined
    from holdfast.models.load import device

    with joined(rank, device(job.device).type if rank.size > 1 else ""):
        return _run_with_torch(job, out, Journal(rank.place(out)))


def _run_with_torch(job: Job, out: Path, journal: Journal) -> Notes:
    # Where each rank writes what all have found; the first's is kept.
    own = journal.path.parent
    if isinstance(job, BuildBase):
        from holdfast.models.tiny.build import build_base

        build_base(job.recipe, job.seed, out, journal)
        return {}
    if isinstance(job, CheckJob):
        from holdfast.stages.preflight import check

        return check(job)
    if isinstance(job, Trial):
        from holdfast.stages.trial import trial

        return trial(job, own, journal)
    if isinstance(job, TraceTrial):
        from holdfast.stages.trace_trial import trace_trial

        return trace_trial(job)
    if isinstance(job, AskTrial):
        from holdfast.stages.ask_trial import ask_trial

        return ask_trial(job)
    if isinstance(job, Evaluate | Sample | Predict):
        return _ask(job, own, journal)
    if isinstance(job, Train):
        return _train(job, out, journal)
    if isinstance(job, Blend):
        from holdfast.models.interpolate import interpolate

        return interpolate(job, out, journal)
    if isinstance(job, Select):
        from holdfast.influence.selection import select
        from holdfast.stages.out_of_memory import SAMPLES, explained

        with explained(SAMPLES):
            return select(job, own, journal)
    if isinstance(job, Trace):
        return _trace(job, own, journal)
    if isinstance(job, Account):
        from holdfast.stages.ledger import account
        from holdfast.stages.out_of_memory import SAMPLES, explained

        with explained(SAMPLES):
            return account(job, out, journal)
    raise TypeError(f"no verb for {type(job).__name__}")


def _ask(job: Evaluate | Sample | Predict, out: Path, journal: Journal) -> Notes:
    from holdfast.evaluation.predictors import predictors
    from holdfast.evaluation.sampling import sample
    from holdfast.evaluation.stage import evaluate
    from holdfast.stages.out_of_memory import ASKED, explained

    with explained(ASKED):
        if isinstance(job, Evaluate):
            return evaluate(job, out, journal)
        return sample(job, out, journal) if isinstance(job, Sample) else predictors(job, out, journal)


def _train(job: Train, out: Path, journal: Journal) -> Notes:
    from holdfast.evaluation.stage import validating
    from holdfast.models.load import load_processor
    from holdfast.stages.out_of_memory import ASKED, STEP, explained
    from holdfast.training.stage import train

    measure = explained(ASKED)(validating(job, load_processor(job.start)))
    with explained(STEP):
        if not job.keep_steps:
            return train(job, out, journal, measure)
        from holdfast.stages.step_recording import Recorder

        recorder = Recorder(job, out)
        notes = train(job, out, journal, measure, recorder.watch)
    return notes | ({"told": recorder.told} if recorder.told else {})


def _trace(job: Trace, out: Path, journal: Journal) -> Notes:
    from holdfast.influence.trace import trace
    from holdfast.models.load import load_processor
    from holdfast.stages.on_policy import rollouts
    from holdfast.stages.out_of_memory import SAMPLES, explained

    reinforced = job.train.stage.method == "grpo"
    with explained(SAMPLES):
        return trace(job, out, journal, rollouts(job, load_processor(job.train.start)) if reinforced else None)


def result(out: Path, seconds: float, notes: Notes) -> Result:
    """What a complete stage left: the last value of each metric, its checkpoints, and the digest of every file.

    One that was not finite at last is told as such. What a training began with is none of its results.
    """
    metrics: dict[str, float] = {}
    checkpoints = []
    lines = read_lines(out / METRICS) if (out / METRICS).is_file() else []
    went_on = any(line.get("step") for line in lines)
    for line in lines:
        if line.get("step") or not went_on:
            metrics |= line.get("metrics", {})
        if "checkpoint" in line:
            checkpoints.append(Checkpoint(**line["checkpoint"]))
    if (out / "model").is_dir():
        checkpoints.append(Checkpoint(step=0, path="model", digest=directory_digest(out / "model")))
    files = {path.relative_to(out).as_posix(): path for path in sorted(out.rglob("*")) if path.is_file()}
    kept = {name: path for name, path in files.items() if _is_kept(name)}
    return Result(
        metrics=metrics,
        checkpoints=tuple(checkpoints),
        files={name: known_digest(path) for name, path in kept.items()},
        stamps={name: stamp_of(path) for name, path in kept.items()},
        seconds=round(seconds, 3),
        peak_memory_mb=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        notes=notes,
    )


def _is_kept(name: str) -> bool:
    """Whether a file is a part of the result; what a process that died was about to write is none."""
    whole = name not in UNKEPT and not name.endswith(".partial")
    return whole and not name.startswith(f"{STEPS}/") and not is_of_a_rank(name)


def _write(path: Path, content: Result) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(content.model_dump_json(indent=1))
    partial.replace(path)
