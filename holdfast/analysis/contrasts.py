"""What is compared: all pairs of arms within a setting, and the levels of every factor for the same arm.

Draws of data and base that both sides have are paired; their differences vary, and are what the verdict is about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from holdfast.analysis.answers import Answers, Checkpoint
from holdfast.analysis.estimates import Moments, pooled
from holdfast.analysis.matched import Point, at_score, common_score
from holdfast.analysis.verdicts import Difference, difference, holm, needed, paired, word

MEASURES = ("score", "retention")
END, MATCHED = "end", "matched"
ARM = "arm"
Named = dict[str, Moments]


class Setting(NamedTuple):
    """The studies of one setting, which differ in nothing but what was drawn."""

    draws: tuple[Answers, ...]

    @property
    def name(self) -> str:
        return self.draws[0].place.setting

    @property
    def arms(self) -> tuple[str, ...]:
        """Those that some draw has trained to the end, in the order of the file."""
        return tuple(arm for arm in self.draws[0].study.arms if any(arm in draw.arms for draw in self.draws))

    @property
    def shared(self) -> bool:
        """All draws were asked the same questions."""
        return all(draw.digests == self.draws[0].digests for draw in self.draws)

    def pooled(self, arm: str, of: Callable[[Answers], Named]) -> Named:
        """Measures over the draws that have an arm; those that all of them have."""
        found = [of(draw) for draw in self.draws if arm in draw.arms]
        names = [name for name in found[0] if all(name in one for one in found)]
        return {name: pooled([one[name] for one in found], self.shared) for name in names}

    def measures(self, arm: str) -> Named:
        """At the end of training."""
        return self.pooled(arm, lambda draw: draw.at_end(arm))

    def common(self, arm: str) -> list[Checkpoint]:
        """Checkpoints whose step all trainings have."""
        runs = [
            {one.step: one for one in draw.checkpoints(arm) if one.replicate == end.replicate}
            for draw in self.draws
            if arm in draw.arms
            for end in draw.ends(arm)
        ]
        return [runs[0][step] for step in sorted(set.intersection(*(set(run) for run in runs)))]

    def at(self, arm: str, step: int) -> Named:
        """At a step of all trainings; at 0 of the base."""

        def of(draw: Answers) -> Named:
            if step == 0:
                return draw.measures([draw.base]) | draw.prompts([draw.base])
            replicates = {end.replicate for end in draw.ends(arm)}
            own = [one for one in draw.checkpoints(arm) if one.step == step and one.replicate in replicates]
            return draw.measures(own) | draw.prompts(own)

        return self.pooled(arm, of)

    def trajectory(self, arm: str) -> list[Point]:
        """Mean trajectory, from the base on."""
        steps = [0, *(one.step for one in self.common(arm))]
        return [Point(step, found["score"], found["retention"]) for step in steps for found in [self.at(arm, step)]]

    def of_base(self, benchmark: str | None) -> Named:
        """accuracy, score and unparsed of the base on a benchmark, or on the prior ones' mean."""
        found = []
        for draw in self.draws:
            names = draw.priors if benchmark is None else (benchmark,)
            values = {
                name: draw.values([draw.base], field) for name, field in (("accuracy", "correct"), ("score", "score"))
            }
            values["unparsed"] = 1 - draw.values([draw.base], "parsed_ok")
            found.append({name: draw.mean(given, names) for name, given in values.items()})
        return {name: pooled([one[name] for one in found], self.shared) for name in found[0]}


class Compared(NamedTuple):
    """One row to be."""

    about: dict[str, Any]
    difference: Difference | None
    reason: str = ""
    score: float = float("nan")
    replicates: tuple[int, ...] = (0, 0)
    """Of a and b."""


def verdicts(settings: Sequence[Setting], trajectories: dict[tuple[str, str], list[Point]]) -> pd.DataFrame:
    """`Analysis.verdicts`; p-values are adjusted within setting, factor, measure and at."""
    found = [row for setting in settings for row in _arms(setting, trajectories)] + list(_levels(settings))
    families: dict[tuple[Any, ...], list[Compared]] = {}
    for row in found:
        families.setdefault(tuple(row.about[name] for name in ("setting", "factor", "measure", "at")), []).append(row)
    rows = [row for family in families.values() for row in _family(family)]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"needed_replicates": float, "needed_questions": float})


COLUMNS = [
    *("setting", "factor", "arm", "a", "b", "measure", "at", "matched_score"),
    *("difference", "difference_low", "difference_high", "p", "p_adjusted", "verdict", "reason"),
    *("needed_replicates", "needed_questions", "replicates_a", "replicates_b", "covers"),
]


def _family(rows: Sequence[Compared]) -> Iterator[dict[str, Any]]:
    p = np.array([row.difference.p if row.difference else np.nan for row in rows])
    tested = int(np.isfinite(p).sum())
    for row, adjusted in zip(rows, holm(p).tolist(), strict=True):
        given = row.about | {"reason": row.reason, "matched_score": row.score, "p_adjusted": adjusted}
        given |= {"replicates_a": row.replicates[0], "replicates_b": row.replicates[1]}
        if row.difference is None:
            yield given | {"verdict": "not comparable", "covers": ""}
            continue
        found, verdict = row.difference.estimate, word(row.difference, adjusted)
        replicates, questions = needed(row.difference, tested) if verdict == "not distinguishable" else (None, None)
        given |= {"difference": found.value, "difference_low": found.low, "difference_high": found.high}
        given |= {"p": row.difference.p, "verdict": verdict, "covers": found.covers}
        yield given | {"needed_replicates": replicates, "needed_questions": questions}


def _arms(setting: Setting, trajectories: dict[tuple[str, str], list[Point]]) -> Iterator[Compared]:
    for a, b in combinations(setting.arms, 2):
        about = {"setting": setting.name, "factor": ARM, "arm": "", "a": a, "b": b}
        both = [draw for draw in setting.draws if a in draw.arms and b in draw.arms]
        counts = tuple(sum(len(draw.ends(arm)) for draw in both) for arm in (a, b))
        if not both:
            yield from (
                Compared(about | {"measure": measure, "at": END}, None, "they were trained on no common data")
                for measure in MEASURES
            )
            continue
        narrowed = Setting(tuple(both))
        first, second = narrowed.measures(a), narrowed.measures(b)
        for measure in MEASURES:
            found = _difference(first[measure], second[measure])
            yield Compared(about | {"measure": measure, "at": END}, found, replicates=counts)
        whole = len(both) == len(setting.draws)
        paths = [trajectories[setting.name, arm] if whole else narrowed.trajectory(arm) for arm in (a, b)]
        yield _at_matched(about | {"measure": "retention", "at": MATCHED}, paths, counts)


def _at_matched(about: dict[str, Any], paths: Sequence[list[Point]], counts: tuple[int, ...]) -> Compared:
    score = common_score(paths)
    if score is None:
        low = " and ".join(
            name for name, path in zip((about["a"], about["b"]), paths, strict=True) if common_score([path]) is None
        )
        return Compared(about, None, f"{low or 'one of them'} does not rise above the base's score", replicates=counts)
    reached = [at_score(path, score) for path in paths]
    if reached[0] is None or reached[1] is None:
        return Compared(about, None, "they never have the same score", score, counts)
    return Compared(about, _difference(reached[0].retention, reached[1].retention), "", score, counts)


def _difference(first: Moments, second: Moments, same_questions: bool = True) -> Difference:
    if first.seeds and second.seeds and same_questions:
        return paired(first, second)
    return difference(first, second, same_questions)


def _levels(settings: Sequence[Setting]) -> Iterator[Compared]:
    """The same arm at two levels of one factor, all other factors' levels alike."""
    for one, other in combinations(settings, 2):
        mine, others = one.draws[0].place.levels, other.draws[0].place.levels
        differing = [factor for factor in mine if factor in others and mine[factor] != others[factor]]
        if len(differing) != 1 or mine.keys() != others.keys():
            continue
        [factor] = differing
        rest = ", ".join(f"{name}={level}" for name, level in mine.items() if name != factor)
        same_target = one.draws[0].benchmarks[0] == other.draws[0].benchmarks[0]
        for arm in [arm for arm in one.arms if arm in other.arms]:
            about = {"setting": rest, "factor": factor, "arm": arm, "a": mine[factor], "b": others[factor], "at": END}
            yield from _two_levels(about, arm, (one, other), same_target)


def _two_levels(
    about: dict[str, Any], arm: str, pair: tuple[Setting, Setting], same_target: bool
) -> Iterator[Compared]:
    one, other = pair
    draws = [[draw.place.draw for draw in setting.draws if arm in draw.arms] for setting in pair]
    alike = draws[0] == draws[1]
    first, second = one.measures(arm), other.measures(arm)
    counts = tuple(sum(len(draw.ends(arm)) for draw in s.draws if arm in draw.arms) for s in pair)
    for measure in MEASURES:
        if measure == "score" and not same_target:
            yield Compared(about | {"measure": measure}, None, "they learn different targets", replicates=counts)
            continue
        digests = [setting.draws[0].digests[0 if measure == "score" else 1 :] for setting in pair]
        if measure == "score":
            digests = [digest[:1] for digest in digests]
        same = digests[0] == digests[1] and len(draws[0]) == len(draws[1]) == 1
        seeds = len(draws[0]) > 1 and alike
        found = paired(first[measure], second[measure]) if seeds else difference(first[measure], second[measure], same)
        yield Compared(about | {"measure": measure}, found, replicates=counts)
