"""Which setting of a sweep a study belongs to, and which studies differ in nothing but what was drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from holdfast.config.jobs import FinishedStudy
from holdfast.config.study import Study

STUDY = "study"
"""The factor that tells studies apart which are no members of one sweep."""


class Place(NamedTuple):
    """Where a study stands."""

    study: str
    levels: dict[str, str]
    """Of the factors that are compared."""
    draws: dict[str, str]
    """Of the factors that only reseed: data or base are drawn anew, and what differs is part of the variance."""

    @property
    def setting(self) -> str:
        return _label(self.levels)

    @property
    def draw(self) -> str:
        return _label(self.draws)


def _label(levels: dict[str, str]) -> str:
    return ", ".join(f"{factor}={level}" for factor, level in levels.items())


def places(studies: Sequence[FinishedStudy]) -> tuple[Place, ...]:
    """The studies' places, in order. Those that belong to no common sweep have one more factor, `study`."""
    experiments = [study.study.experiment for study in studies]
    several = len(set(experiments)) > 1
    levels = [
        ({STUDY: name} if several else {}) | study.levels for name, study in zip(experiments, studies, strict=True)
    ]
    reseeding = _reseeding(studies)
    names = _unique([study.study.name for study in studies])
    found = tuple(
        Place(
            name,
            {factor: level for factor, level in own.items() if factor not in reseeding},
            {factor: level for factor, level in own.items() if factor in reseeding},
        )
        for name, own in zip(names, levels, strict=True)
    )
    if len({(place.setting, place.draw) for place in found}) == len(found):
        return found
    return tuple(place._replace(levels={STUDY: place.study} | place.levels) for place in found)


def _unique(names: Sequence[str]) -> list[str]:
    """Names, the second of a kind as `NAME (2)`."""
    return [
        name if name not in names[:index] else f"{name} ({names[: index + 1].count(name)})"
        for index, name in enumerate(names)
    ]


def _reseeding(studies: Sequence[FinishedStudy]) -> set[str]:
    """Factors whose levels change nothing but seeds."""
    factors = dict.fromkeys(factor for study in studies for factor in study.levels)
    return {factor for factor in factors if _only_reseeds(factor, studies)}


def _only_reseeds(factor: str, studies: Sequence[FinishedStudy]) -> bool:
    groups: dict[tuple[Any, ...], list[Study]] = {}
    for study in studies:
        if factor in study.levels:
            others = tuple(sorted((other, level) for other, level in study.levels.items() if other != factor))
            groups.setdefault((study.study.experiment, others), []).append(study.study)
    several = [group for group in groups.values() if len(group) > 1]
    return bool(several) and all(_unseeded(study) == _unseeded(group[0]) for group in several for study in group)


def _unseeded(study: Study) -> Any:
    return _without_seeds(study.model_dump(exclude={"name", "sweep"}))


def _without_seeds(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_seeds(item) for key, item in value.items() if key != "seed"}
    if isinstance(value, list | tuple):
        return [_without_seeds(item) for item in value]
    return value
