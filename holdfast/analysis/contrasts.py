"""What is compared: all pairs of arms within a setting, and the levels of every factor for the same arm.

Draws of data and base that both sides have are paired; their differences vary, and are what the verdict is about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from holdfast.analysis.answers import Answers, Checkpoint
from holdfast.analysis.estimates import Moments, pooled
from holdfast.analysis.matched import Point, at_score, common_score
from holdfast.analysis.verdicts import Difference, difference, holm, needed, paired, word

MEASURES = ("score", "retention")
END, MATCHED = "end", "matched"
COLUMNS = [
    *("setting", "factor", "arm", "a", "b", "measure", "at", "matched_score"),
    *("difference", "difference_low", "difference_high", "p", "p_adjusted", "verdict", "reason"),
    *("needed_replicates", "needed_questions", "replicates_a", "replicates_b", "covers"),
]
Named = dict[str, Moments]
Row = dict[str, Any]


class Setting:
    """The studies of one setting, which differ in nothing but what was drawn."""

    def __init__(self, draws: Sequence[Answers]) -> None:
        self.draws = draws
        self.name = draws[0].place.setting
        self.arms = [arm for arm in draws[0].study.arms if self.having(arm)]
        """Those that some draw has trained to the end, in the order of the file."""
        self.shared = all(draw.digests == draws[0].digests for draw in draws)
        """All draws were asked the same questions."""
        self._courses: dict[str, list[tuple[Checkpoint, Named]]] = {}

    def having(self, *arms: str) -> list[Answers]:
        """The draws that have trained all these arms to the end."""
        return [draw for draw in self.draws if set(arms) <= set(draw.arms)]

    def ends(self, arm: str) -> list[Checkpoint]:
        """Of all trainings."""
        return [end for draw in self.having(arm) for end in draw.ends[arm]]

    def pooled(self, of: Callable[[Answers], Named], *arms: str) -> Named:
        """Measures over the draws that have these arms; those that all of them have."""
        found = [of(draw) for draw in self.having(*arms)]
        names = [name for name in found[0] if all(name in one for one in found)]
        return {name: pooled([one[name] for one in found], self.shared) for name in names}

    def measures(self, arm: str) -> Named:
        """At the end of training."""
        return self.pooled(lambda draw: draw.at_end[arm], arm)

    def course(self, arm: str) -> list[tuple[Checkpoint, Named]]:
        """Measures of the base, and at every step that all trainings have."""
        if arm not in self._courses:
            runs = [{one.step: one for one in path} for draw in self.having(arm) for path in draw.paths(arm)]
            steps = sorted(set.intersection(*(set(run) for run in runs)))
            common = [self.draws[0].base, *(runs[0][step] for step in steps)]
            self._courses[arm] = [
                (one, self.pooled(partial(Answers.at, arm=arm, checkpoint=one), arm)) for one in common
            ]
        return self._courses[arm]

    def trajectory(self, arm: str) -> list[Point]:
        """Mean trajectory, from the base on."""
        return [Point(one.step, found["score"], found["retention"]) for one, found in self.course(arm)]


def verdicts(settings: Sequence[Setting]) -> pd.DataFrame:
    """`Analysis.verdicts`; p-values are adjusted within setting, factor, measure and at."""
    families: dict[tuple[str, ...], list[Row]] = {}
    for row in [*(row for setting in settings for row in _arms(setting)), *_levels(settings)]:
        families.setdefault((row["setting"], row["factor"], row["measure"], row["at"]), []).append(row)
    rows = [row for family in families.values() for row in _judged(family)]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"needed_replicates": float, "needed_questions": float})


def _judged(rows: Sequence[Row]) -> Iterator[Row]:
    p = np.array([row["found"].p if row["found"] else np.nan for row in rows])
    for row, adjusted in zip(rows, holm(p).tolist(), strict=True):
        found: Difference | None = row["found"]
        given: Row = {"p_adjusted": adjusted, "verdict": "not comparable", "covers": ""}
        if found is not None:
            whole = found.estimate
            given |= {"difference": whole.value, "difference_low": whole.low, "difference_high": whole.high}
            given |= {"p": found.p, "verdict": word(found, adjusted), "covers": whole.covers}
        if found is not None and given["verdict"] == "not distinguishable":
            given["needed_replicates"], given["needed_questions"] = needed(found, int(np.isfinite(p).sum()))
        yield row | given


def _row(about: Row, found: Difference | None, reason: str = "", score: float = float("nan")) -> Row:
    """A comparison, before the others of its family are known."""
    return about | {"found": found, "reason": reason, "matched_score": score}


def _arms(setting: Setting) -> Iterator[Row]:
    for a, b in combinations(setting.arms, 2):
        having = setting.having(a, b)
        about: Row = {"setting": setting.name, "factor": "arm", "arm": "", "a": a, "b": b, "at": END}
        about |= {f"replicates_{side}": sum(len(draw.ends[about[side]]) for draw in having) for side in ("a", "b")}
        if not having:
            reason = "they were trained on no common data"
            yield from (_row(about | {"measure": measure}, None, reason) for measure in MEASURES)
            continue
        both = setting if len(having) == len(setting.draws) else Setting(having)
        first, second = both.measures(a), both.measures(b)
        for measure in MEASURES:
            yield _row(about | {"measure": measure}, _difference(first[measure], second[measure]))
        paths = [both.trajectory(arm) for arm in (a, b)]
        yield _at_matched(about | {"measure": "retention", "at": MATCHED}, paths)


def _at_matched(about: Row, paths: Sequence[list[Point]]) -> Row:
    score = common_score(paths)
    if score is None:
        named = zip((about["a"], about["b"]), paths, strict=True)
        low = " and ".join(name for name, path in named if common_score([path]) is None)
        return _row(about, None, f"{low or 'one of them'} does not rise above the base's score")
    first, second = (at_score(path, score) for path in paths)
    if first is None or second is None:
        return _row(about, None, "they never have the same score", score)
    return _row(about, _difference(first.retention, second.retention), score=score)


def _difference(first: Moments, second: Moments, same_draws: bool = True, same_questions: bool = True) -> Difference:
    if first.seeds and same_draws:
        return paired(first, second)
    return difference(first, second, same_questions)


def _levels(settings: Sequence[Setting]) -> Iterator[Row]:
    """The same arm at two levels of one factor, all other factors' levels alike."""
    for pair in combinations(settings, 2):
        mine, others = (setting.draws[0].place.levels for setting in pair)
        differing = [factor for factor in mine if factor in others and mine[factor] != others[factor]]
        if len(differing) != 1 or mine.keys() != others.keys():
            continue
        [factor] = differing
        rest = ", ".join(f"{name}={level}" for name, level in mine.items() if name != factor)
        for arm in [arm for arm in pair[0].arms if arm in pair[1].arms]:
            about = {"setting": rest, "factor": factor, "arm": arm, "a": mine[factor], "b": others[factor], "at": END}
            yield from _two_levels(about, arm, pair)


def _two_levels(about: Row, arm: str, pair: tuple[Setting, Setting]) -> Iterator[Row]:
    about |= {"replicates_a": len(pair[0].ends(arm)), "replicates_b": len(pair[1].ends(arm))}
    first, second = (setting.measures(arm) for setting in pair)
    draws, others = ([draw.place.draw for draw in setting.having(arm)] for setting in pair)
    targets = {setting.draws[0].targets for setting in pair}
    count = len(pair[0].draws[0].targets)
    for measure, benchmarks in (("score", slice(count)), ("retention", slice(count, None))):
        about["measure"] = measure
        if measure == "score" and len(targets) > 1:
            yield _row(about, None, "they learn different targets")
            continue
        asked = {setting.draws[0].digests[benchmarks] for setting in pair}
        same_questions = len(asked) == len(draws) == len(others) == 1
        yield _row(about, _difference(first[measure], second[measure], draws == others, same_questions))
