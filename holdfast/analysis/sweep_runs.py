"""A sweep read back: its members with their runs, and which part of the page each factor governs.

Factors are told apart by what they do to the studies, never by their names.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq

from holdfast.analysis.records import Finished, Graded, finished_runs
from holdfast.config.jobs import Contrast, FinishedMember
from holdfast.config.study import Study
from holdfast.errors import UserError

BASE = ""
"""Stands where an arm's name would: the base model."""


class Setting(NamedTuple):
    """A member of the sweep that has been evaluated."""

    levels: dict[str, str]
    study: Study
    data: Path
    finished: Finished
    samples: int | None
    """Questions to learn from; None where the shard is gone."""

    @property
    def arms(self) -> tuple[str, ...]:
        return tuple(arm.name for arm in self.finished.arms)

    def graded(self, arm: str) -> tuple[Graded, ...]:
        """All final answers of an arm, or of the base."""
        if arm == BASE:
            return self.finished.base_graded
        return next(found.final for found in self.finished.arms if found.name == arm)

    def target(self, arm: str) -> tuple[Graded, ...]:
        """The final answers to target questions."""
        return tuple(row for row in self.graded(arm) if row.role == "target")


class Model(NamedTuple):
    """The last checkpoint of an arm of a setting, by the setting's index, or its base."""

    setting: int
    arm: str


class Roles(NamedTuple):
    """What each factor is for."""

    panel: str | None
    """Everything is drawn once for each of its levels."""
    samples: str | None
    """The number of training questions follows it."""
    series: tuple[str, ...]
    repeats: tuple[str, ...]
    """They change nothing but the seed, so their levels are averaged."""


class Series(NamedTuple):
    """What is told apart by color and marker: an arm at a level of each of the roles' series factors."""

    arm: str
    levels: tuple[str, ...]
    name: str
    short: str


class Layout(NamedTuple):
    """The settings by index: which panel, which column, which series."""

    factors: dict[str, tuple[str, ...]]
    settings: tuple[Setting, ...]
    roles: Roles

    @property
    def panels(self) -> tuple[str, ...]:
        return self._levels(self.roles.panel)

    @property
    def columns(self) -> tuple[str, ...]:
        return self._levels(self.roles.samples)

    @property
    def arms(self) -> tuple[str, ...]:
        """Of all settings, in the order of the file."""
        named = dict.fromkeys(arm for setting in self.settings for arm in setting.study.arms)
        return tuple(arm for arm in named if any(arm in setting.arms for setting in self.settings))

    @property
    def series(self) -> tuple[Series, ...]:
        present = {(arm, self.rest(setting)) for setting in self.settings for arm in setting.arms}
        combined = [(arm, levels) for arm in self.arms for levels in self.combinations if (arm, levels) in present]
        return tuple(
            Series(arm, levels, self.series_name(arm, levels), " ".join((arm, *levels))) for arm, levels in combined
        )

    @property
    def combinations(self) -> list[tuple[str, ...]]:
        """Of the levels of the factors that tell series of one arm apart."""
        return list(product(*(self.factors[factor] for factor in self.roles.series)))

    def rest(self, setting: Setting) -> tuple[str, ...]:
        """The setting's levels of those factors."""
        return tuple(setting.levels[factor] for factor in self.roles.series)

    def series_name(self, arm: str, levels: tuple[str, ...]) -> str:
        shown = [f"{factor} {level}" for factor, level in zip(self.roles.series, levels, strict=True)]
        return ", ".join((arm, *shown))

    def within(self, panel: str, column: str | None = None) -> list[int]:
        """Settings of a panel, and of one of its columns."""
        return [
            index
            for index, setting in enumerate(self.settings)
            if level(setting, self.roles.panel) == panel
            and (column is None or level(setting, self.roles.samples) == column)
        ]

    def models(self, arm: str, levels: tuple[str, ...], panel: str, column: str | None = None) -> list[Model]:
        """An arm, or the base, at levels of the series factors: one model for every repeat, and for every column."""
        return [
            Model(index, arm)
            for index in self.within(panel, column)
            if self.rest(self.settings[index]) == levels and arm in (BASE, *self.settings[index].arms)
        ]

    def _levels(self, factor: str | None) -> tuple[str, ...]:
        return ("",) if factor is None else self.factors[factor]


def level(setting: Setting, factor: str | None) -> str:
    return "" if factor is None else setting.levels[factor]


def read_layout(job: Contrast) -> Layout:
    """Read the members that have been evaluated; of the levels, keep those that are left."""
    settings = tuple(_setting(member) for member in job.members if any(run.kind == "evaluate" for run in member.runs))
    if not settings:
        raise UserError(f"{job.name}: no study of this sweep has been evaluated, so there is nothing to compare")
    factors = {
        factor: tuple(name for name in names if any(setting.levels[factor] == name for setting in settings))
        for factor, names in job.factors.items()
    }
    return Layout(factors, settings, roles(factors, settings))


def _setting(member: FinishedMember) -> Setting:
    shard = member.data.path / "target-train.parquet"
    samples = pq.read_metadata(shard).num_rows if shard.exists() else None
    return Setting(
        member.levels,
        member.study,
        member.data.path,
        finished_runs(member.runs, tuple(member.study.arms)),
        samples or None,
    )


def roles(factors: Iterable[str], settings: tuple[Setting, ...]) -> Roles:
    """Repeats and the samples factor by what they change; of the others, the first makes panels."""
    repeats = tuple(factor for factor in factors if _only_reseeds(factor, settings))
    left = [factor for factor in factors if factor not in repeats]
    spreads = {factor: _spread(factor, settings) for factor in left}
    samples = max(left, key=spreads.__getitem__) if left and max(spreads.values()) > 0 else None
    left = [factor for factor in left if factor != samples]
    return Roles(left[0] if left else None, samples, tuple(left[1:]), repeats)


def _only_reseeds(factor: str, settings: tuple[Setting, ...]) -> bool:
    unseeded = [
        [s.study.model_dump(exclude={"name", "sweep", "seed"}) for s in group]
        for group in differing_in(factor, settings)
    ]
    return bool(unseeded) and all(study == group[0] for group in unseeded for study in group)


def _spread(factor: str, settings: tuple[Setting, ...]) -> float:
    """How far apart it puts the numbers of training questions of one target, in powers of e."""
    counts = [
        sorted(setting.samples for setting in group if setting.samples)
        for group in differing_in(factor, settings)
        if len({setting.study.target.benchmark for setting in group}) == 1
    ]
    return max((math.log(found[-1] / found[0]) for found in counts if found), default=0.0)


def differing_in(factor: str, settings: tuple[Setting, ...]) -> list[list[Setting]]:
    """Groups of two settings and more that differ in this factor alone."""
    groups: dict[tuple[str, ...], list[Setting]] = {}
    for setting in settings:
        key = tuple(name for other, name in sorted(setting.levels.items()) if other != factor)
        groups.setdefault(key, []).append(setting)
    return [group for group in groups.values() if len(group) > 1]
