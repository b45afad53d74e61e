"""The answers of one study as arrays, and what is measured of some of its checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd

from holdfast.analysis.estimates import Moments, less, mean_of, ratio
from holdfast.analysis.forgetting import pass_at
from holdfast.analysis.settings import Place
from holdfast.analysis.table import BASE, Tables
from holdfast.config.jobs import FinishedStudy

FIELDS = ("parsed_ok", "correct", "score", "tokens")
TEST, VALIDATION = "test", "validation"


class Checkpoint(NamedTuple):
    """One that was asked everything. `step` counts over all stages."""

    arm: str
    replicate: int
    step: int
    stage: int = 0
    stage_step: int = 0


class Answers:
    """A study's records, the benchmarks one after the other, the target first."""

    def __init__(self, study: FinishedStudy, place: Place, tables: Tables) -> None:
        self.study, self.place, self.tables = study.study, place, tables
        self.files = tables.files[tables.files["study"] == place.study]
        of_base = self.files[self.files["arm"] == BASE]
        self.benchmarks = tuple(of_base["benchmark"])
        self.priors = tuple(of_base.loc[of_base["role"] == "prior", "benchmark"])
        self.digests = tuple(of_base["digest"])
        self.rows: dict[Checkpoint, dict[str, tuple[int, int, int]]] = {}
        for key, files in self.files.groupby(["arm", "replicate", "step", "stage", "stage_step"], sort=False):
            if len(files) == len(of_base):
                bounds = zip(files["start"], files["middle"], files["stop"], strict=True)
                self.rows[Checkpoint(*key)] = dict(zip(files["benchmark"], bounds, strict=True))
        self._ends: dict[str, list[Checkpoint]] = {}
        self._at_end: dict[str, dict[str, Moments]] = {}
        self.base = next(checkpoint for checkpoint in self.rows if checkpoint.arm == BASE)

    @cached_property
    def strata(self) -> np.ndarray:
        """Which benchmark each test question is of."""
        lengths = [middle - start for start, middle, _ in self.rows[self.base].values()]
        return np.repeat(np.arange(len(lengths)), lengths)

    @cached_property
    def clusters(self) -> np.ndarray:
        """Which image each test question is about."""
        codes = self.tables.records["image"].cat.codes.to_numpy()
        return pd.factorize(codes[self.records(self.base, TEST)])[0]

    @cached_property
    def arms(self) -> tuple[str, ...]:
        """With a training that was evaluated to its end."""
        return tuple(arm for arm in self.study.arms if self.ends(arm))

    def records(self, checkpoint: Checkpoint, split: str) -> np.ndarray:
        """Rows of the table, in the order of questions."""
        bounds = self.rows[checkpoint].values()
        return np.concatenate(
            [np.arange(start, middle) if split == TEST else np.arange(middle, stop) for start, middle, stop in bounds]
        )

    def checkpoints(self, arm: str) -> list[Checkpoint]:
        """Of all replicates, in order of replicate and step."""
        return sorted((one for one in self.rows if one.arm == arm), key=lambda one: (one.replicate, one.step))

    def ends(self, arm: str) -> list[Checkpoint]:
        """The last checkpoint of every replicate that was trained and evaluated to its end."""
        if arm not in self._ends:
            self._ends[arm] = self._found_ends(arm)
        return self._ends[arm]

    def _found_ends(self, arm: str) -> list[Checkpoint]:
        trained = self.tables.trainings
        trained = trained[(trained["study"] == self.place.study) & (trained["arm"] == arm)]
        last = trained[trained["stage"] == len(self.study.arms[arm]) - 1]
        steps = {row.replicate: row.offset + row.steps for row in last.itertuples()}
        return [one for one in self.checkpoints(arm) if one.step == steps.get(one.replicate)]

    def values(self, checkpoints: Sequence[Checkpoint], field: str, split: str = TEST) -> np.ndarray:
        """(checkpoints, questions)."""
        column = self.tables.records[field].to_numpy()
        return np.stack([column[self.records(one, split)] for one in checkpoints]).astype(float)

    def mean(self, values: np.ndarray, benchmarks: Sequence[str]) -> Moments:
        """Mean over some benchmarks of values of test questions (checkpoints, questions)."""
        wanted = [self.benchmarks.index(name) for name in benchmarks]
        return mean_of(values, np.where(np.isin(self.strata, wanted), self.strata, -1), self.clusters)

    def measures(self, checkpoints: Sequence[Checkpoint]) -> dict[str, Moments]:
        """score, accuracy, unparsed_target and tokens of the target; prior, unparsed, retention and forgetting."""
        target = self.benchmarks[:1]
        right, read = self.values(checkpoints, "correct"), self.values(checkpoints, "parsed_ok")
        base = self.mean(self.values([self.base], "correct"), self.priors)
        prior = self.mean(right, self.priors)
        return {
            "score": self.mean(self.values(checkpoints, "score"), target),
            "accuracy": self.mean(right, target),
            "unparsed_target": self.mean(1 - read, target),
            "tokens": self.mean(self.values(checkpoints, "tokens"), target),
            "prior": prior,
            "unparsed": self.mean(1 - read, self.priors),
            "retention": ratio(prior, base),
            "forgetting": less(base, prior),
        }

    def at_end(self, arm: str) -> dict[str, Moments]:
        """`measures` and `prompts` at the end of training."""
        if arm not in self._at_end:
            self._at_end[arm] = self.measures(self.ends(arm)) | self.prompts(self.ends(arm))
        return self._at_end[arm]

    def levels(self, checkpoint: Checkpoint) -> dict[str, float]:
        """score, prior, retention and forgetting of one checkpoint, without intervals."""
        score = self.values([checkpoint], "score")[0, self.strata == 0]
        prior, base = (self._prior(one) for one in (checkpoint, self.base))
        kept = prior / base if base > 0 else float("nan")
        return {"score": float(np.nanmean(score)), "prior": prior, "retention": kept, "forgetting": base - prior}

    def _prior(self, checkpoint: Checkpoint) -> float:
        right = self.values([checkpoint], "correct")[0]
        accuracies = np.bincount(self.strata, right) / np.bincount(self.strata)
        return float(accuracies[[self.benchmarks.index(name) for name in self.priors]].mean())

    def benchmark(self, checkpoints: Sequence[Checkpoint], name: str) -> dict[str, Moments]:
        """accuracy, score, unparsed, forgetting, lost_unreadable, lost_wrong and gained of one benchmark."""
        right, read = self.values(checkpoints, "correct"), self.values(checkpoints, "parsed_ok")
        before = self.values([self.base], "correct")
        lost = before * (1 - right)
        values = {
            "accuracy": right,
            "score": self.values(checkpoints, "score"),
            "unparsed": 1 - read,
            "forgetting": before - right,
            "lost_unreadable": lost * (1 - read),
            "lost_wrong": lost * read,
            "gained": (1 - before) * right,
        }
        return {measure: self.mean(found, [name]) for measure, found in values.items()}

    def prompts(self, checkpoints: Sequence[Checkpoint]) -> dict[str, Moments]:
        """kl, and pass_at_K, of prompts; only what was measured for all of them."""
        found = {}
        drift = self._of_prompts(self.tables.drift, "kl", checkpoints)
        if drift is not None:
            found["kl"] = drift
        most = max(self.study.evaluation.pass_at, default=0)
        for k in self.study.evaluation.pass_at:
            table = self.tables.pass_at
            chances = table.assign(chance=[pass_at(k, most, int(right)) for right in table["right"]])
            if (chance := self._of_prompts(chances, "chance", checkpoints)) is not None:
                found[f"pass_at_{k}"] = chance
        return found

    def _of_prompts(self, table: pd.DataFrame, column: str, checkpoints: Sequence[Checkpoint]) -> Moments | None:
        if not len(table):
            return None
        own = table[table["study"] == self.place.study].groupby(["arm", "replicate", "step"])
        if any(one[:3] not in own.groups for one in checkpoints):
            return None
        rows = [own.get_group(one[:3]).set_index("question")[column] for one in checkpoints]
        values = np.stack([row.reindex(rows[0].index).to_numpy(float) for row in rows])
        return mean_of(values, np.zeros(values.shape[1], int), np.arange(values.shape[1]))
