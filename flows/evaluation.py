"""Which checkpoints are asked which benchmarks: files that are there are found, the missing ones are a job or few."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from functools import partial
from statistics import fmean
from typing import Any, NamedTuple, Protocol

import pyarrow.parquet as pq

from flows.jobs import shard_ref
from holdfast.analysis.forgetting import forgetting
from holdfast.analysis.forgetting import pass_at as chance
from holdfast.config.jobs import Drift, Evaluate, PassAt, Shards
from holdfast.config.refs import DataRef, FileRef, ModelRef, content_key
from holdfast.config.results import Evaluated
from holdfast.config.study import Study
from holdfast.data.shards import prior_shard, target_shard
from holdfast.evaluation.records import measured, read_records
from holdfast.stages.sources import source_digest
from tasks.stage import Position, StageRun
from tasks.stage_cache import key_content, lock_digest

REFERENCES = "references"
Metrics = dict[int, dict[str, float]]
"""By step and name."""


class Evaluating(Protocol):
    """Finds files of evaluations, and runs what is missing."""

    def run(self, job: Evaluate, position: Position = ...) -> StageRun: ...

    def known_units(self, models: Sequence[ModelRef]) -> dict[str, FileRef]: ...


class Questions(NamedTuple):
    """What a study asks every checkpoint. A part of it is the records of a benchmark, the drift, pass@k, or, of the
    base alone, the samples that drift is measured on; a part and a model make a unit, which is one file."""

    study: Study
    base: ModelRef
    benchmarks: tuple[Shards, ...]
    """The targets first; drift and pass@k are of the first of them."""
    references: FileRef | None = None
    """The base's samples, once there are any."""

    def parts(self) -> dict[str, Any]:
        """Every part by name, as what decides it beside the model."""
        evaluation, target = self.study.evaluation, self.benchmarks[0]
        parts: dict[str, Any] = {f"records/{shards.name}": shards for shards in self.benchmarks}
        parts["drift"] = Drift(
            target=target,
            prompts=evaluation.drift_prompts,
            kind=evaluation.drift,
            temperature=evaluation.temperature,
            references=self.references,
        )
        if self.references is None:
            parts[REFERENCES] = self.study.seed
        if evaluation.pass_at:
            parts["pass_at"] = PassAt(target=target, k=evaluation.pass_at, temperature=evaluation.temperature)
        return parts

    def key(self, model: ModelRef, part: str) -> str:
        """sha256 of all that decides a unit: the model, what it is asked, and the code that asks."""
        evaluation = self.study.evaluation
        seed = self.study.seed if part in ("pass_at", REFERENCES) else None
        settings = [evaluation.max_new_tokens, evaluation.validation, self.study.model.dtype, seed]
        if evaluation.vllm is not None:
            settings.append(key_content(evaluation.vllm))
        asked = [key_content(model), key_content(self.base), part, key_content(self.parts()[part])]
        return content_key([*asked, settings, source_digest("evaluate"), lock_digest()])

    def job(self, models: Sequence[ModelRef], parts: Sequence[str]) -> Evaluate:
        """One job for what some models all lack; of a whole base, also how many answers another batch size changes."""
        study, evaluation, all_parts = self.study, self.study.evaluation, self.parts()
        drifting = "drift" in parts or REFERENCES in parts
        whole = self.references is None and all(part in parts for part in all_parts)
        return Evaluate(
            seed=study.seed,
            threads=study.compute.threads,
            device=study.compute.device,
            models=tuple(models),
            base=self.base,
            dtype=study.model.dtype,
            benchmarks=tuple(shards for shards in self.benchmarks if f"records/{shards.name}" in parts),
            limit=evaluation.max_new_tokens,
            validation=evaluation.validation,
            batch_size=evaluation.batch_size,
            vllm=evaluation.vllm,
            gpus=study.compute.gpus,
            drift=all_parts["drift"] if drifting else None,
            pass_at=all_parts["pass_at"] if "pass_at" in parts else None,
            # vLLM makes batches of its own.
            again=max(1, evaluation.batch_size // 3) if whole and evaluation.vllm is None else None,
            units={self.key(model, part): file_name(model, part) for model in models for part in parts},
        )


def file_name(model: ModelRef, part: str) -> str:
    """Where an evaluation leaves a unit."""
    kind, _, benchmark = part.partition("/")
    if kind == REFERENCES:
        return f"{REFERENCES}.parquet"
    return f"{kind}/step-{model.step:06d}" + (f"/{benchmark}.parquet" if benchmark else ".parquet")


def questions_of(study: Study, data: DataRef, base: ModelRef, references: FileRef | None = None) -> Questions:
    """The shards of a study's benchmarks."""

    def shards(role: Any, name: str, path: Callable[[str], str]) -> Shards:
        test, validation = (shard_ref(data, path(split)) for split in ("test", "validation"))
        return Shards(name=name, role=role, test=test, validation=validation)

    targets = [shards("target", name, target_path(study, name)) for name in study.all_targets]
    priors = [shards("prior", prior.name, partial(prior_shard, prior.name)) for prior in study.prior]
    return Questions(study, base, (*targets, *priors), references)


def target_path(study: Study, name: str) -> Callable[[str], str]:
    """From a split to the file of a target's questions."""
    return partial(target_shard, name=name if study.targets else "")


def units_of(
    questions: Questions, models: Sequence[ModelRef], position: Position, executor: Evaluating
) -> dict[tuple[int, str], FileRef]:
    """Every unit of some models of one training, by step and part; those that are missing are made first."""
    known = executor.known_units(models)
    missing: dict[tuple[str, ...], list[ModelRef]] = {}
    for model in models:
        parts = tuple(part for part in questions.parts() if questions.key(model, part) not in known)
        if parts:
            missing.setdefault(parts, []).append(model)
    for parts, lacking in missing.items():
        job = questions.job(lacking, parts)
        run = executor.run(job, position)
        known |= {key: FileRef(path=run.path / name, digest=run.result.files[name]) for key, name in job.units.items()}
    return {(model.step, part): known[questions.key(model, part)] for model in models for part in questions.parts()}


def evaluated(questions: Questions, units: dict[tuple[int, str], FileRef], position: Position) -> tuple[Evaluated, ...]:
    """Units as a report reads them."""
    found = []
    for (step, part), file in units.items():
        kind, _, benchmark = part.partition("/")
        if kind != REFERENCES:
            name = benchmark or questions.benchmarks[0].name
            found.append(Evaluated(kind=kind, **position._asdict(), step=step, benchmark=name, file=file))
    return tuple(found)


def metrics_by_step(base: Sequence[Evaluated], units: Sequence[Evaluated], pass_at: Sequence[int]) -> Metrics:
    """What checkpoints scored, in the names of the contract, and what they forgot of what the base knew."""
    before = _measured(tuple(base))
    # A training that starts from the base has the base as its step 0, so that its curves begin there.
    found: Metrics = {0: before | forgetting(before, before)} if all(unit.stage == 0 for unit in units) else {}
    for step in sorted({unit.step for unit in units}):
        at_step = tuple(unit for unit in units if unit.step == step)
        now = _measured(at_step)
        found[step] = now | forgetting(before, now)
        for unit in at_step:
            if unit.kind == "drift":
                found[step]["kl/target"] = fmean(pq.read_table(unit.file.path)["kl"].to_pylist())
            if unit.kind == "pass_at":
                right = pq.read_table(unit.file.path)["right"].to_pylist()
                for k in pass_at:
                    chances = [chance(k, max(pass_at), count) for count in right]
                    found[step][f"target/{unit.benchmark}/pass_at_{k}"] = fmean(chances)
    return found


@functools.cache
def _measured(units: tuple[Evaluated, ...]) -> dict[str, float]:
    """Read once: every arm is held against the same base."""
    return measured([record for unit in units if unit.kind == "records" for record in read_records(unit.file.path)])
