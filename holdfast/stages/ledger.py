"""The ledger of a finished stage: train it again, look at benchmarks along the way, and go back over its steps."""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.config.jobs import STEPS, Account
from holdfast.errors import UserError
from holdfast.influence.checkpoint_influence import verify
from holdfast.influence.checkpoints import require_recorded
from holdfast.influence.replay import ledger
from holdfast.influence.replay.attribution import Attribution, Interval, Recording, backwards, unexplained
from holdfast.influence.replay.kept_intervals import attributed
from holdfast.influence.replay.nodes import Nodes, place
from holdfast.influence.replay.steps import StepStore
from holdfast.influence.replay.taught import StepSamples
from holdfast.influence.replay.tokens import token_effects, write_tokens
from holdfast.influence.samples import benchmark_questions, learned_benchmark, sample_encoder, target_benchmarks
from holdfast.journal import Journal
from holdfast.models.image_feature_cache import cached_image_features
from holdfast.stages.retraining import PHASES, replay
from holdfast.stages.step_recording import Recorded, recorded

ROUNDING = 0.02
"""Of all that was done, signs apart. Adam's first steps move weights whose gradients are mere rounding, too."""


def account(job: Account, out: Path, journal: Journal) -> dict[str, Any]:
    """Write ledger.parquet and closure.parquet; returns notes.

    Raises:
        UserError: the training does not come out again, is none that rules cover, or its steps do not add up.
    """
    for ref in job.kept:
        require_recorded(ref)
    scratch = out / "scratch"
    notes = _account(job, out, scratch, journal)
    # Until here, since steps of several GPUs cannot be taken again after an interruption.
    shutil.rmtree(scratch)
    return notes


def _training(job: Account, out: Path, scratch: Path, journal: Journal) -> Recorded:
    """As it was taken down when it trained, if that is there, which no other ledger takes then; or trained again."""
    scratch.mkdir(exist_ok=True)
    steps = scratch / STEPS
    shutil.rmtree(scratch / "training", ignore_errors=True)
    # What an interrupted ledger took, or what waits.
    if (found := recorded(job.train, job.kept, steps)) is not None:
        return found
    shutil.rmtree(steps, ignore_errors=True)
    if job.recorded:
        with suppress(FileNotFoundError):
            out.with_name(job.recorded).rename(steps)
    if (found := recorded(job.train, job.kept, steps)) is not None:
        return found
    shutil.rmtree(steps, ignore_errors=True)
    if job.train.ranks > 1:
        raise UserError(
            f"influence.ledger: the steps of this training by {job.train.ranks} GPUs were not kept (the disk was full, "
            "its study asked for no ledger, or other code or other GPUs went on after an interruption), and one "
            "process cannot take them again to the bit; train it with compute.gpus: 1, or leave influence.ledger out"
        )
    return replay(job.train, job.kept, StepStore(steps), scratch / "training", journal)


def _account(job: Account, out: Path, scratch: Path, journal: Journal) -> dict[str, Any]:
    trained = _training(job, out, scratch, journal)
    store, steps = trained.store, trained.steps
    settings = job.influence
    encoder = sample_encoder(job.train, settings)
    completions = benchmark_questions(job.data.path, settings.questions)
    names = list(completions)
    nodes = Nodes(trained.model, store, {name: encoder.samples(given) for name, given in completions.items()}, encoder)
    taught = [store.taught(step + 1) for step in range(steps)]
    samples = StepSamples(taught, trained.questions, encoder, trained.model.device, trained.temperature)
    clock = [time.monotonic()]
    with cached_image_features(trained.model, {}):
        nodes.begin((0, *(ref.step for ref in job.kept)))
        before = steps if trained.seconds else 0
        total = before + (PHASES - 1) * steps
        added = nodes.refine(
            job.settings.error, job.settings.nodes, lambda share: journal.progress(before + int(share * steps), total)
        )
        clock.append(time.monotonic())
        place(trained.model, store.read(0, "weights"))
        if first := samples.first():
            verify(trained.model, first, encoder)
        facts = [store.facts(step + 1) for step in range(steps)]
        attribution = Attribution(trained.model, Recording(store, facts, samples.learned), len(names))
        target = learned_benchmark(job.train)
        attribution.mixtures = mixtures(names, target, target_benchmarks(job.data.path))
        attribution.token_effects = token_effects if job.settings.tokens else None
        intervals = []
        for start, end in backwards(nodes.steps):
            slopes = nodes.slopes(start, end)
            intervals.append(attributed(attribution, (start, end), slopes, nodes.folder / "intervals"))
            journal.progress(total - start, total)
    clock.append(time.monotonic())
    _require_sums(intervals)
    closure = ledger.closure_rows(nodes, intervals)
    stage = job.train.stage
    source = stage.source.kind if stage.method == "sft" else stage.method
    rows = list(ledger.ledger_rows({target: source}, names, attribution.samples, samples))
    ledger.write(out, rows, closure)
    if attribution.tokens:
        write_tokens(out, attribution.tokens, samples)
    _log(journal, steps, ledger.totals(source, names, closure, rows))
    seconds = {"training again": trained.seconds, "benchmarks": clock[1] - clock[0], "steps": clock[2] - clock[1]}
    return {
        "source": source,
        "intervals": len(intervals),
        "nodes added": added,
        "largest error": nodes.largest_error(),
        **{f"seconds, {name},": round(value, 1) for name, value in seconds.items()},
    }


def mixtures(names: Sequence[str], target: str, targets: Collection[str]) -> np.ndarray:
    """What tokens are held against (2, benchmarks): the mean of all that is no stage's target, and the stage's own."""
    prior = np.array([name not in targets for name in names], dtype=float)
    return np.stack([prior / prior.sum(), [name == target for name in names]])


def _require_sums(intervals: Sequence[Interval]) -> None:
    """Refuse a ledger that leaves more than rounding unexplained.

    Raises:
        UserError: it names the interval.
    """
    for one, share in zip(intervals, unexplained(intervals), strict=True):
        if not share <= ROUNDING:
            raise UserError(
                f"influence.ledger: between steps {one.start} and {one.end} samples, penalty and decay leave "
                f"{share:.0%} of what they did unexplained, so something else moved the weights, or half "
                "precision is too coarse (model.dtype: float32 is not); leave out influence.ledger"
            )


def _log(journal: Journal, step: int, found: dict[tuple[str, str], dict[str, float]]) -> None:
    values = {f"ledger/{'/'.join(whose)}/{key}": value for whose, one in found.items() for key, value in one.items()}
    journal.log(step, {name: value for name, value in values.items() if np.isfinite(value)})
