"""Evaluation: checkpoints are asked benchmarks, and leave records. Nothing is trained for another question.

One file a checkpoint and benchmark: what is there already is not asked again. What a training itself asks along the
way, validation questions for its alarms, is `validating`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from holdfast.config.jobs import Drift, Evaluate, Shards, Train
from holdfast.config.refs import FileRef, ModelRef
from holdfast.data.shards import read_questions, shard_paths
from holdfast.evaluation import drift
from holdfast.evaluation.evaluator import Evaluator, asked, right_of
from holdfast.evaluation.generate import Reader, Sampling
from holdfast.evaluation.records import Record, measured, write_records
from holdfast.evaluation.vllm_decoder import decoder_of
from holdfast.journal import Journal
from holdfast.models.image_feature_cache import ImageFeatures, cached_image_features, tower_digest
from holdfast.models.load import device, load_model, load_processor
from holdfast.models.precision import base_dtype, computing_in, study_dtype

REFERENCES = "references.parquet"
CUT = 0.05
"""Share of a benchmark's answers that the limit may cut off before a person is told: length then sets the score."""


def evaluate(job: Evaluate, out: Path, journal: Journal) -> dict[str, Any]:
    """Ask every model; the base, alone, also leaves its own samples for others' drift. Returns notes."""
    processor = load_processor(job.base)
    decoder = decoder_of(job, processor)
    reader = Reader(processor, job.batch_size, together=True, decoder=decoder)
    evaluator = Evaluator(asked(job.benchmarks, ("test", "validation"), job.validation), reader, job.limit)
    dtype, where = base_dtype(job.dtype, job.base), device(job.device)
    drifting = _Drifting(job, job.drift, reader, out) if job.drift is not None else None
    images: dict[str, ImageFeatures] = {}
    notes: dict[str, Any] = {}
    cut: dict[int, dict[str, float]] = {}
    for number, ref in enumerate(job.models):
        model = load_model(ref, dtype, where).requires_grad_(False)
        with cached_image_features(model, images.setdefault(tower_digest(model), {})):
            records = list(evaluator.evaluate(model)) if job.benchmarks else []
            _write(records, out, ref.step)
            found = measured(records)
            cut[ref.step] = {name: value for name, value in found.items() if name.endswith("/cut")}
            if drifting is not None:
                found["kl/target"] = drifting.measure(model, ref)
            if job.pass_at is not None:
                _write_right(out, ref.step, right_of(model, reader, job.pass_at, job.limit, job.seed))
            if job.again is not None:
                notes["flips"] = flips(records, list(evaluator.evaluate(model, job.again)))
        if ref.digest == job.base.digest:
            # What trained models score stands on the runs that trained them.
            journal.log(ref.step, found)
        # The next one is loaded before this name lets go of it.
        del model
        journal.progress(number + 1, len(job.models), **_shown(found))
    told = cut_off(cut, job.limit)
    return notes | ({"told": told} if told else {}) | (decoder.notes() if decoder is not None else {})


def cut_off(shares: Mapping[int, Mapping[str, float]], limit: int) -> list[str]:
    """A sentence for a person on every benchmark of whose answers too many were cut off, at the step with most of them.

    `shares` are by step and metric; those of validation questions are left out.
    """
    names = dict.fromkeys(name for at_step in shares.values() for name in at_step if not name.startswith("validation/"))
    sentences = []
    for name in names:
        step, share = max(((step, found[name]) for step, found in shares.items()), key=lambda one: one[1])
        if share > CUT:
            sentences.append(
                f"{name.split('/')[1]}: {share:.0%} of the answers at step {step} are cut off at "
                f"evaluation.max_new_tokens {limit}, so some may be wrong for their length alone; raise it"
            )
    return sentences


class _Drifting:
    """The base and its samples, which every model is compared on."""

    def __init__(self, job: Evaluate, asked_for: Drift, reader: Reader, out: Path) -> None:
        self.job, self.drift, self.reader, self.out = job, asked_for, reader, out
        self.questions = read_questions(asked_for.target.test.path, asked_for.prompts)
        self.prompts = self.reader.encode(self.questions)
        self.base: Any = None

    def measure(self, model: Any, ref: ModelRef) -> float:
        """Mean over prompts of KL(base ‖ model) per token; each prompt's is written."""
        references = self._references(model)
        if self.drift.kind == "sampled":
            found = drift.sampled_drift(model, self.reader, self.prompts, references, self.drift.temperature)
        else:
            if self.base is None:
                own_base = ref.digest == self.job.base.digest
                self.base = (
                    model
                    if own_base
                    else load_model(self.job.base, base_dtype(self.job.dtype, self.job.base), model.device)
                )
            pair = drift.Pair(self.base, model)
            found = drift.drift(pair, self.reader, self.prompts, references, self.drift.temperature)
        drift.write_drift(self.out / "drift" / f"step-{ref.step:06d}.parquet", references, found)
        return sum(found) / len(found)

    def _references(self, model: Any) -> list[drift.Reference]:
        if self.drift.references is not None:
            return drift.read_references(self.drift.references.path)
        sampling = Sampling(self.job.limit, self.drift.temperature, seed=self.job.seed)
        references = drift.sample_base(model, self.reader, self.questions, self.prompts, sampling)
        drift.write_references(self.out / REFERENCES, references)
        return references


def flips(once: Sequence[Record], again: Sequence[Record]) -> dict[str, float]:
    """Shares of questions whose answer, and whose verdict, differ between two evaluations of one model."""
    pairs = list(zip(once, again, strict=True))
    return {
        "questions": float(len(pairs)),
        "answers": sum(a.parsed != b.parsed for a, b in pairs) / max(1, len(pairs)),
        "verdicts": sum(a.correct != b.correct for a, b in pairs) / max(1, len(pairs)),
    }


def validating(job: Train, processor: Any) -> Callable[[Any, int], dict[str, float]]:
    """What a training calls at a kept step: accuracies and scores of validation questions, below `validation/`."""
    evaluation = job.evaluation
    paths = shard_paths(job.data.path, "validation")
    benchmarks = [_validation(path, "target" if path.name.startswith("target") else "prior") for path in paths]
    questions = asked(benchmarks, ("validation",), evaluation.validation)
    evaluator = Evaluator(questions, Reader(processor, evaluation.batch_size), job.limit)
    images: ImageFeatures = {}
    dtype = study_dtype(job)

    def validate(model: Any, step: int) -> dict[str, float]:
        with computing_in(dtype, model), cached_image_features(model, images):
            return measured(list(evaluator.evaluate(model)))

    return validate


def _validation(path: Path, role: Literal["target", "prior"]) -> Shards:
    """A benchmark of which only validation questions are asked."""
    shard = FileRef(path=path, digest="")
    return Shards(name=read_questions(path, 1)[0].benchmark, role=role, test=shard, validation=shard)


def _write(records: Sequence[Record], out: Path, step: int) -> None:
    by_benchmark: dict[str, list[Record]] = {}
    for record in records:
        by_benchmark.setdefault(record.benchmark, []).append(record)
    for name, rows in by_benchmark.items():
        write_records(out / "records" / f"step-{step:06d}" / f"{name}.parquet", rows)


def _write_right(out: Path, step: int, right: Sequence[tuple[str, int]]) -> None:
    path = out / "pass_at" / f"step-{step:06d}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    ids, counts = zip(*right, strict=True)
    partial = path.with_suffix(".partial")
    pq.write_table(pa.table({"id": ids, "right": counts}), partial)
    partial.replace(path)


def _shown(found: dict[str, float]) -> dict[str, float]:
    """The two numbers worth showing while models are asked."""
    shown = {}
    for name, value in found.items():
        if name == "prior/mean/accuracy":
            shown["prior"] = value
        if name.startswith("target/") and name.endswith("/score"):
            shown["score"] = value
    return shown
