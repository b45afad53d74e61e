"""The answers of one study as arrays, and what is measured of some of its checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from holdfast.analysis.estimates import Moments, less, mean_of, ratio
from holdfast.analysis.forgetting import pass_at
from holdfast.analysis.settings import Place
from holdfast.analysis.table import BASE, Tables
from holdfast.config.results import FinishedStudy

TEST, VALIDATION = "test", "validation"


class Checkpoint(NamedTuple):
    """One that was asked everything. `step` counts over all stages."""

    arm: str
    replicate: int
    step: int
    stage: int = 0
    stage_step: int = 0


class Answers:
    """A study's records, the benchmarks one after the other, the targets first."""

    def __init__(self, study: FinishedStudy, place: Place, tables: Tables) -> None:
        self.study, self.place, self.tables = study.study, place, tables
        files = tables.files[tables.files["study"] == place.study]
        of_base = files[files["arm"] == BASE]
        self.benchmarks = tuple(of_base["benchmark"])
        count = len(self.study.all_targets)
        self.targets, self.priors = self.benchmarks[:count], self.benchmarks[count:]
        self.digests = tuple(of_base["digest"])
        self.bounds: dict[Checkpoint, np.ndarray] = {}
        """(benchmarks, 3): where their rows start, where validation questions do, and where they stop."""
        for key, rows in files.groupby(list(Checkpoint._fields), sort=False):
            if len(rows) == len(of_base):
                self.bounds[Checkpoint(*key)] = rows[["start", "middle", "stop"]].to_numpy()
        self.base = next(one for one in self.bounds if one.arm == BASE)
        self.ends = {arm: self._ends(arm) for arm in self.study.arms}
        """The last checkpoint of every replicate that was trained and evaluated to its end."""
        self.arms = tuple(arm for arm, ends in self.ends.items() if ends)

    def _ends(self, arm: str) -> list[Checkpoint]:
        trained = self.tables.trainings
        trained = trained[(trained["study"] == self.place.study) & (trained["arm"] == arm)]
        last = trained[trained["stage"] == len(self.study.arms[arm]) - 1].set_index("replicate")
        steps = (last["offset"] + last["steps"]).to_dict()
        return [one for one in self.checkpoints(arm) if one.step == steps.get(one.replicate)]

    def role(self, benchmark: str) -> str:
        """Of a benchmark; nothing of what is about none."""
        return ("target" if benchmark in self.targets else "prior") if benchmark else ""

    def checkpoints(self, arm: str) -> list[Checkpoint]:
        """Of all replicates, in order of replicate and step."""
        return sorted(one for one in self.bounds if one.arm == arm)

    def paths(self, arm: str) -> list[list[Checkpoint]]:
        """Of every replicate with an end, its checkpoints in order."""
        return [[one for one in self.checkpoints(arm) if one.replicate == end.replicate] for end in self.ends[arm]]

    @cached_property
    def strata(self) -> np.ndarray:
        """Which benchmark each test question is of."""
        start, middle, _ = self.bounds[self.base].T
        return np.repeat(np.arange(len(start)), middle - start)

    @cached_property
    def clusters(self) -> np.ndarray:
        """Which image each test question is about."""
        codes = self.tables.records["image"].cat.codes.to_numpy()
        return pd.factorize(codes[self.records(self.base)])[0]

    def records(self, checkpoint: Checkpoint) -> np.ndarray:
        """Rows of the table with its test questions, in their order."""
        return np.concatenate([np.arange(start, middle) for start, middle, _ in self.bounds[checkpoint]])

    def values(self, checkpoints: Sequence[Checkpoint], field: str) -> np.ndarray:
        """Of test questions (checkpoints, questions)."""
        column = self.tables.records[field].to_numpy()
        return np.stack([column[self.records(one)] for one in checkpoints]).astype(float)

    def mean(self, values: np.ndarray, benchmarks: Sequence[str]) -> Moments:
        """Mean over some benchmarks of values of test questions (checkpoints, questions)."""
        wanted = [self.benchmarks.index(name) for name in benchmarks]
        return mean_of(values, np.where(np.isin(self.strata, wanted), self.strata, -1), self.clusters)

    def measures(self, checkpoints: Sequence[Checkpoint]) -> dict[str, Moments]:
        """score, accuracy, unparsed_target and tokens of the targets, in their mean; prior, unparsed, retention and
        forgetting; lenient, cut, cut_target, kl and pass_at_K where they were measured for all of them."""
        target = self.targets
        right, read = self.values(checkpoints, "correct"), self.values(checkpoints, "parsed_ok")
        base = self.mean(self.values([self.base], "correct"), self.priors)
        prior = self.mean(right, self.priors)
        return (
            {
                "score": self.mean(self.values(checkpoints, "score"), target),
                "accuracy": self.mean(right, target),
                "unparsed_target": self.mean(1 - read, target),
                "tokens": self.mean(self.values(checkpoints, "tokens"), target),
                "prior": prior,
                "unparsed": self.mean(1 - read, self.priors),
                "retention": ratio(prior, base),
                "forgetting": less(base, prior),
            }
            | self._recorded(checkpoints)
            | self.prompts(checkpoints)
        )

    def _recorded(self, checkpoints: Sequence[Checkpoint]) -> dict[str, Moments]:
        """What old records do not say; only what these ones say of every question."""
        about = {"lenient": ("lenient", self.targets)}
        about |= {"cut": ("cut", self.priors), "cut_target": ("cut", self.targets)}
        found = {name: self.mean(self.values(checkpoints, field), of) for name, (field, of) in about.items()}
        return {name: moments for name, moments in found.items() if not moments.left_out}

    def at(self, arm: str, checkpoint: Checkpoint) -> dict[str, Moments]:
        """`measures` of all replicates of an arm at the step of one, or of the base."""
        own = [one for path in self.paths(arm) for one in path if one.step == checkpoint.step]
        return self.measures(own if checkpoint.step else [self.base])

    @cached_property
    def at_end(self) -> dict[str, dict[str, Moments]]:
        """`measures` of every arm at the end of training."""
        return {arm: self.measures(self.ends[arm]) for arm in self.arms}

    def levels(self, checkpoint: Checkpoint, split: str = TEST) -> dict[str, float]:
        """score, prior, retention and forgetting of one checkpoint, without intervals."""
        many = len(self.targets)
        score = self.means(checkpoint, "score", split)[:many]
        prior, base = (float(self.means(one, "correct", split)[many:].mean()) for one in (checkpoint, self.base))
        kept = prior / base if base > 0 else float("nan")
        return {"score": float(score.mean()), "prior": prior, "retention": kept, "forgetting": base - prior}

    def means(self, checkpoint: Checkpoint, field: str, split: str = TEST) -> np.ndarray:
        """By benchmark (benchmarks,); what is not a number is left out."""
        column = self.tables.records[field].to_numpy()
        begin = 0 if split == TEST else 1
        parts = [column[bounds[begin] : bounds[begin + 1]] for bounds in self.bounds[checkpoint]]
        return np.array([np.nanmean(part) if len(part) else np.nan for part in parts])

    def benchmark(self, arm: str, names: Sequence[str]) -> dict[str, Moments]:
        """accuracy, strict, score, lenient, unparsed, cut, forgetting, forgetting_strict, lost_unreadable, lost_wrong,
        lost_cut and gained, in the mean over benchmarks, of an arm's ends or of the base."""
        own, base = [self.base] if arm == BASE else self.ends[arm], [self.base]
        asked = np.isin(self.strata, [self.benchmarks.index(name) for name in names])
        now = ("correct", "strict", "parsed_ok", "score", "lenient", "cut")
        right, strict, read, score, lenient, cut = (self.values(own, field)[:, asked] for field in now)
        before, formed = (self.values(base, field)[:, asked] for field in ("correct", "strict"))
        lost = before * (1 - right)
        values = {
            "accuracy": right,
            "strict": strict,
            "score": score,
            "lenient": lenient,
            "unparsed": 1 - read,
            "cut": cut,
            "forgetting": before - right,
            "forgetting_strict": formed - strict,
            "lost_unreadable": lost * (1 - read),
            "lost_wrong": lost * read,
            "lost_cut": lost * cut,
            "gained": (1 - before) * right,
        }
        strata, clusters = self.strata[asked], self.clusters[asked]
        return {measure: mean_of(found, strata, clusters) for measure, found in values.items()}

    def prompts(self, checkpoints: Sequence[Checkpoint]) -> dict[str, Moments]:
        """kl, and pass_at_K, of prompts; only what was measured for all of them."""
        found = {}
        for name, by_checkpoint in self._prompts.items():
            if all(one[:3] in by_checkpoint for one in checkpoints):
                rows = [by_checkpoint[one[:3]] for one in checkpoints]
                values = np.stack([row.reindex(rows[0].index).to_numpy(float) for row in rows])
                found[name] = mean_of(values, np.zeros(values.shape[1], int), np.arange(values.shape[1]))
        return found

    @cached_property
    def _prompts(self) -> dict[str, dict[Any, pd.Series]]:
        """By measure, and by arm, replicate and step, the values by question."""
        drift, samples = self.tables.drift, self.tables.pass_at
        tables = {"kl": drift.assign(value=drift["kl"])}
        most = max(self.study.evaluation.pass_at, default=0)
        for k in self.study.evaluation.pass_at:
            chances = [pass_at(k, most, int(right)) for right in samples["right"]]
            tables[f"pass_at_{k}"] = samples.assign(value=chances)
        found = {}
        for name, table in tables.items():
            own = table[table["study"] == self.place.study].set_index("question")
            found[name] = dict(iter(own.groupby(["arm", "replicate", "step"])["value"]))
        return found
