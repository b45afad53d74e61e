"""Which setting of a sweep a study belongs to, and which studies differ in nothing but what was drawn."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from holdfast.config.results import FinishedStudy
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

    @property
    def columns(self) -> dict[str, str]:
        """What every table says of the study."""
        return {"study": self.study, "setting": self.setting, "draw": self.draw}


def _label(levels: dict[str, str]) -> str:
    return ", ".join(f"{factor}={level}" for factor, level in levels.items())


def places(studies: Sequence[FinishedStudy]) -> tuple[Place, ...]:
    """The studies' places, in order. Those that belong to no common sweep have one more factor, `study`."""
    origins = _origins(studies)
    several = len(set(origins)) > 1
    factors = {factor for study in studies for factor in study.levels}
    reseeding = {factor for factor in factors if _only_reseeds(factor, studies)}
    names = [study.study.name for study in studies]
    found = []
    for index, (name, study) in enumerate(zip(names, studies, strict=True)):
        before = names[:index].count(name)
        levels = ({STUDY: origins[index]} if several else {}) | study.levels
        draws = {factor: levels.pop(factor) for factor in study.levels if factor in reseeding}
        found.append(Place(f"{name} ({before + 1})" if before else name, levels, draws))
    if len({(place.setting, place.draw) for place in found}) < len(found):
        found = [place._replace(levels={STUDY: place.study} | place.levels) for place in found]
    return tuple(found)


def _origins(studies: Sequence[FinishedStudy]) -> list[str]:
    """The sweep that each belongs to, or its own name; a study may bear the name of a sweep."""
    own = {study.study.name for study in studies if not study.study.sweep}
    return [f"{study.study.sweep} (sweep)" if study.study.sweep in own else study.study.experiment for study in studies]


def _only_reseeds(factor: str, studies: Sequence[FinishedStudy]) -> bool:
    """Whether a factor's levels change nothing but seeds."""
    groups: dict[tuple[Any, ...], list[Study]] = {}
    for study in studies:
        if factor in study.levels:
            others = tuple(sorted((other, level) for other, level in study.levels.items() if other != factor))
            groups.setdefault((study.study.experiment, others), []).append(study.study)
    several = [group for group in groups.values() if len(group) > 1]
    return bool(several) and all(_unseeded(study) == _unseeded(group[0]) for group in several for study in group)


def _unseeded(study: Study) -> Any:
    """What the file says but for seeds, at any depth."""
    content = study.model_dump_json(exclude={"name", "sweep"})
    return json.loads(content, object_hook=lambda found: {key: found[key] for key in found if key != "seed"})
