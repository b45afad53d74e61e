"""What a trace leaves: rows and texts of all checkpoints, logged measures, and sums over the checkpoints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.config.jobs import Trace
from holdfast.influence import measures, tables
from holdfast.influence.checkpoint_influence import CheckpointInfluence
from holdfast.influence.samples import Sample, learned_benchmark
from holdfast.influence.trajectory import Trajectory
from holdfast.journal import Journal


class TraceRecord:
    """Takes the influence at one checkpoint after the other, and logs what it comes to."""

    def __init__(self, job: Trace, journal: Journal, benchmarks: Sequence[str]) -> None:
        self.job, self.journal, self.benchmarks = job, journal, benchmarks
        self.target = learned_benchmark(job.train)
        self.rows: list[dict[str, Any]] = []
        self.texts: list[dict[str, Any]] = []
        self.samples: dict[int, Sequence[Sample]] = {}
        """Those with a finite gradient, by step."""
        self.without_gradient: list[str] = []
        self.tracin: dict[str, float] = {}
        self.loglik_start: dict[str, float] = {}
        """Of a supervised stage's samples, by id: their log-likelihood under the model that the stage began with."""

    @property
    def source(self) -> str:
        """`grpo`, or where a supervised stage's completions come from."""
        stage = self.job.train.stage
        return stage.source.kind if stage.method == "sft" else stage.method

    def add(self, step: int, influence: CheckpointInfluence, samples: Sequence[Sample], lbk: dict[str, float]) -> None:
        """Keep a checkpoint's rows and log its measures; `lbk` is `reference_lbk`."""
        self.rows += influence.rows(self.source, step)
        self.samples[step] = influence.samples
        self.without_gradient += [f"{sample} at step {step}" for sample in influence.broken]
        columns = influence.sample_columns()
        self.texts += [
            {"sample": s.id, "prompt": s.prompt, "step": step, "text": s.text} | columns.get(s.id, {}) for s in samples
        ]
        found = influence.measures(self.target) | lbk
        if self.source != "grpo":
            if step == 0:
                ids = [sample.id for sample in influence.samples]
                self.loglik_start = dict(zip(ids, influence.loglik.tolist(), strict=True))
            found["perplexity_start"] = self._start_perplexity(step, self.loglik_start)
        self._add_tracin(step, found)
        self.log(step, found)

    def add_start(self, step: int, loglik: Sequence[float]) -> None:
        """Log how foreign a checkpoint's rollouts would have been to the model that the stage began with.

        `loglik` is that of `samples` at the step, under that model.
        """
        ids = [sample.id for sample in self.samples[step]]
        self.log(step, {"perplexity_start": self._start_perplexity(step, dict(zip(ids, loglik, strict=True)))})

    def log(self, step: int, found: Mapping[str, float]) -> None:
        """Log measures; one that is NaN has no value, as a cosine with nothing."""
        known = {f"influence/{self.source}/{name}": value for name, value in found.items() if not math.isnan(value)}
        self.journal.log(step, known)

    def write(self, out: Path, trajectory: Trajectory) -> None:
        """Log what is about the whole training, and write the tables."""
        self.log(self.job.kept[-1].step, self.tracin | trajectory.measures(self.target))
        tables.write_rows(out / "influence.parquet", self.rows)
        tables.write_sources(out / "sources.parquet", self.texts)
        tables.write_trajectory(out / "path.parquet", trajectory.rows)

    def notes(self) -> dict[str, Any]:
        """Samples that were left out, by name."""
        found = self.without_gradient
        return {"samples without a finite gradient, left out,": found} if found else {}

    def _start_perplexity(self, step: int, loglik_start: Mapping[str, float]) -> float:
        """Keep each sample's log-likelihood under the start; returns their perplexity under it."""
        for row in self.texts:
            if row["step"] == step:
                row["loglik_start"] = loglik_start.get(row["sample"])
        known = [sample for sample in self.samples[step] if sample.id in loglik_start]
        loglik = np.array([loglik_start[sample.id] for sample in known])
        return measures.perplexity(loglik, np.array([len(sample.completion) for sample in known]))

    def _add_tracin(self, step: int, found: dict[str, float]) -> None:
        """TracInCP: Σ over checkpoints of rate × steps × dot, with what was learned from next at each.

        `adam_tracin` lacks the steps to the first kept checkpoint, at whose beginning there are no second moments.
        """
        steps = [0, *(kept.step for kept in self.job.kept)]
        index = steps.index(step)
        if index + 1 == len(steps) or not self.job.rates:
            return
        found["stride"] = stride = self.job.rates[index] * (steps[index + 1] - step)
        for name, (kind, total) in product(self.benchmarks, {"dot": "tracin", "adam_dot": "adam_tracin"}.items()):
            # Where no rollout has an advantage, nothing is learned, and there is no dot.
            if math.isfinite(dot := found.get(f"{name}/{kind}", math.nan)):
                self.tracin[f"{name}/{total}"] = self.tracin.get(f"{name}/{total}", 0.0) + stride * dot


def reference_lbk(influence: CheckpointInfluence, trajectory: Trajectory, step: int) -> dict[str, float]:
    """`BENCHMARK/lbk_reference` of the steps that led to a checkpoint; none at the beginning."""
    if step == 0:
        return {}
    return {
        f"{name}/lbk_reference": measures.reference_lbk(
            trajectory.changes(name, step), influence.spread_norms[name], influence.errors
        )
        for name in influence.benchmarks
    }
