"""What an arm can keep at a given skill, over all settings of a sweep: rates, penalties, numbers of steps.

For a skill s, each replicate takes the checkpoint, of any setting and step, that keeps most among those with a score of
at least s. Validation questions choose it, so that the best of many is not the luckiest; its retention is measured on
test questions, and its score there (`reached`) may lie below s. The base is a checkpoint too, with a retention of 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from holdfast.analysis.answers import VALIDATION, Answers, Checkpoint
from holdfast.analysis.contrasts import Setting
from holdfast.analysis.estimates import Moments, estimate, ratio, weighted
from holdfast.analysis.matched import rounded_down
from holdfast.analysis.verdicts import difference, holm, word

STEP = 0.01
"""Between the skills at which a frontier is measured."""
INTERVAL = ("value", "low", "high")


class Fronts(NamedTuple):
    """Of every arm that more than one setting has trained."""

    curves: pd.DataFrame
    """One row an arm and skill, up to the highest that each of its replicates reaches: arm, score (what is asked for),
    measure retention, reached (mean score on test questions), settings (from which the replicates' checkpoints are)."""
    areas: pd.DataFrame
    """arm, settings (how many), replicates, top (the highest skill of its frontier), common (the highest that all arms
    reach), measures area (mean retention over skills from the base's to the common one) and retention (at the common
    one). Unknown where some arm rises nowhere above the base."""
    verdicts: pd.DataFrame
    """a, b, difference of areas with its interval, p_adjusted (Holm), verdict."""


class Candidate(NamedTuple):
    """A checkpoint as validation questions see it."""

    answers: Answers
    checkpoint: Checkpoint
    score: float
    prior: float


class Front:
    """The frontier of one arm."""

    def __init__(self, arm: str, draws: Sequence[Answers]) -> None:
        self.arm, self.draws = arm, [draw for draw in draws if arm in draw.arms]
        numbers = [{end.replicate for end in draw.ends[arm]} for draw in self.draws]
        self.replicates = sorted(set.intersection(*numbers))
        """Those that every setting has: one trained in fewer has less to choose from."""
        base = [_candidate(self.draws[0], self.draws[0].base)]
        self.candidates = [
            base + [_candidate(draw, one) for draw in self.draws for one in draw.checkpoints(arm) if one.replicate == r]
            for r in self.replicates
        ]
        self.start = base[0].score
        self._known: dict[Any, Moments] = {}
        self.top = rounded_down(min((max(one.score for one in own) for own in self.candidates), default=0.0))

    @cached_property
    def skills(self) -> np.ndarray:
        """From the base's on."""
        return np.round(np.arange(np.ceil(self.start / STEP) * STEP, self.top + STEP / 2, STEP), 4)

    def picks(self, skill: float) -> list[Candidate]:
        """Of each replicate the one that keeps most, and of equals the most skilled."""
        able = ([one for one in own if one.score >= skill - 1e-9] for own in self.candidates)
        return [max(own, key=lambda one: (one.prior, one.score)) for own in able]

    def retention(self, skill: float) -> Moments:
        """On test questions."""
        picks = self.picks(skill)
        # Many skills have the same picks.
        key = tuple((one.answers.place.study, one.checkpoint) for one in picks)
        if key not in self._known:
            first = self.draws[0]
            right = np.concatenate([one.answers.values([one.checkpoint], "correct") for one in picks])
            self._known[key] = ratio(first.mean(right, first.priors), self._base)
        return self._known[key]

    @cached_property
    def _base(self) -> Moments:
        first = self.draws[0]
        return first.mean(first.values([first.base], "correct"), first.priors)

    def area(self, skills: Sequence[float]) -> Moments:
        """Mean retention over these skills."""
        return weighted([(1 / len(skills), self.retention(skill)) for skill in skills])


def fronts(settings: Sequence[Setting]) -> Fronts | None:
    """None where there are no two settings with the same questions and base, or other data was drawn."""
    draws = [draw for setting in settings for draw in setting.draws]
    if len(settings) < 2 or len(draws) > len(settings) or not _comparable(draws):
        return None
    arms = dict.fromkeys(arm for setting in settings for arm in setting.arms)
    found = [front for front in (Front(arm, draws) for arm in arms) if len(front.draws) > 1 and front.replicates]
    if not found:
        return None
    common = min(front.top for front in found)
    skills = [skill for skill in found[0].skills.tolist() if skill <= common + 1e-9]
    areas = {front.arm: front.area(skills) for front in found} if skills else {}
    return Fronts(
        curves=pd.DataFrame([row for front in found for row in _curve(front)]),
        areas=pd.DataFrame([_area(front, areas.get(front.arm), common) for front in found]),
        verdicts=_verdicts(areas),
    )


def _candidate(answers: Answers, checkpoint: Checkpoint) -> Candidate:
    found = answers.levels(checkpoint, VALIDATION)
    return Candidate(answers, checkpoint, found["score"], found["prior"])


def _comparable(draws: Sequence[Answers]) -> bool:
    first = draws[0]
    base = first.values([first.base], "correct")
    return all(
        draw.digests == first.digests
        and np.array_equal(draw.values([draw.base], "correct"), base)
        and np.isfinite(draw.levels(draw.base, VALIDATION)["score"])
        for draw in draws
    )


def _curve(front: Front) -> list[dict[str, Any]]:
    rows = []
    for skill in front.skills.tolist():
        picks = front.picks(skill)
        reached = np.mean([one.answers.levels(one.checkpoint)["score"] for one in picks])
        from_settings = dict.fromkeys(one.answers.place.setting for one in picks if one.checkpoint.step)
        row = {"arm": front.arm, "score": skill, "reached": float(reached), "settings": "; ".join(from_settings)}
        rows.append(row | _interval("retention", front.retention(skill)))
    return rows


def _area(front: Front, area: Moments | None, common: float) -> dict[str, Any]:
    row = {"arm": front.arm, "settings": len(front.draws), "replicates": len(front.replicates), "top": front.top}
    row["common"] = common if area is not None else np.nan
    return row | _interval("area", area) | _interval("retention", front.retention(common) if area is not None else None)


def _interval(name: str, moments: Moments | None) -> dict[str, float]:
    found = estimate(moments) if moments is not None else None
    if found is not None:
        # A retention is not below 0.
        found = found._replace(low=max(found.low, 0.0))
    ends = ("", "_low", "_high")
    return {f"{name}{end}": getattr(found, field, np.nan) for end, field in zip(ends, INTERVAL, strict=True)}


def _verdicts(areas: dict[str, Moments]) -> pd.DataFrame:
    pairs = list(combinations(areas, 2))
    found = [difference(areas[a], areas[b]) for a, b in pairs]
    adjusted = holm(np.array([one.p for one in found])).tolist()
    rows = [
        {"a": a, "b": b, "difference": one.estimate.value, "p_adjusted": p, "verdict": word(one, p)}
        | {"difference_low": one.estimate.low, "difference_high": one.estimate.high}
        for (a, b), one, p in zip(pairs, found, adjusted, strict=True)
    ]
    columns = ["a", "b", "difference", "difference_low", "difference_high", "p_adjusted", "verdict"]
    return pd.DataFrame(rows, columns=columns)
