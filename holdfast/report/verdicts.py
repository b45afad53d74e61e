"""Verdicts in words: which arm retains more, which learns more, and what would decide the rest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from holdfast.report.words import listed

OPEN, ALONE = "not distinguishable", "no verdict (one replicate)"
LEFT = {"Undecided": OPEN, "Not comparable": "not comparable"}
DECIDED = ("better", "worse")
NAMES = {
    ("retention", "matched"): "retention at the same skill",
    ("retention", "end"): "retention at the end",
    ("score", "end"): "target score at the end",
}
"""Measures, and where they are compared, in the order of what matters."""
WHEN = {"matched": "At the same skill", "end": "At the end of training"}
VERBS = {
    "retention": ("retains", "retain", "more prior knowledge"),
    "score": ("reaches", "reach", "a higher target score"),
}
Row = dict[str, Any]
Place = tuple[str, str]


def alone(rows: Sequence[Row]) -> bool:
    """Whether there is no verdict, for want of replicates."""
    words = {row["verdict"] for row in rows}
    return ALONE in words and not words & {*DECIDED, OPEN}


def headline(rows: Sequence[Row], arms: Sequence[Row]) -> str:
    """The result in one sentence, without taking sides."""
    pairs = [row for row in rows if row["factor"] == "arm" and row["verdict"] in (*DECIDED, OPEN)]
    return next((_strongest(known, place) for place in NAMES if (known := at(pairs, place))), _measured(arms))


def at(rows: Sequence[Row], place: Place) -> list[Row]:
    """The comparisons of a measure."""
    return [row for row in rows if (row["measure"], row["at"]) == place]


def _measured(arms: Sequence[Row]) -> str:
    """What was measured, where there is no verdict."""
    known = sorted((row for row in arms if row["retention"] is not None), key=lambda row: row["retention"])
    if not known:
        return f"{len(arms)} arms were trained." if arms else "No arm has finished training yet."
    names = [f"{row['arm']}, {row['setting']}" if row["setting"] else row["arm"] for row in known]
    least, most = (f"{row['retention']:.2f}" for row in (known[0], known[-1]))
    if len(known) == 1:
        ends = f"ends with a target score of {known[0]['score']:.2f}"
        return f"The arm {names[0]} {ends} and retains {least} of its prior accuracy."
    ranges = f"retention ranges from {least} ({names[0]}) to {most} ({names[-1]})"
    if least == most:
        ranges = f"all {len(known)} arms retain {least} of the prior accuracy"
    return f"At the end of training, {ranges}. Single trainings give no verdict."


def _strongest(rows: Sequence[Row], place: Place) -> str:
    """What the arms with the most wins are better than; of several settings, in all of them."""
    settings = {row["setting"] for row in rows}
    decided = _won(rows)
    always = [pair for pair in dict.fromkeys(decided) if decided.count(pair) == len(settings)]
    when, what = WHEN[place[1]], NAMES[place].split(" at ")[0]
    if always:
        better, worse = max(wins(always).items(), key=lambda group: (len(group[1]), len(group[0])))
        everywhere = ", in every setting" if len(settings) > 1 else ""
        return f"{when}{everywhere}, {_surpass(better, place[0])} than {listed(worse)}."
    if decided:
        return f"{when}, {len(decided)} of {len(rows)} pairs of arms differ in {what}."
    return f"{when}, no arm is distinguishable from another by its {what}."


def _surpass(who: Sequence[str], measure: str) -> str:
    one, several, what = VERBS[measure]
    return f"{listed(who)} {one if len(who) == 1 else several} {what}"


def _won(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """(better, worse) of every verdict."""
    decided = [row for row in rows if row["verdict"] in DECIDED]
    return [(row["a"], row["b"]) if row["verdict"] == "better" else (row["b"], row["a"]) for row in decided]


def wins(pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Arms that are better than just the same others, with those others; most wins first."""
    beaten: dict[str, list[str]] = {}
    for better, worse in pairs:
        beaten.setdefault(better, []).append(worse)
    groups: dict[tuple[str, ...], list[str]] = {}
    for arm, others in beaten.items():
        groups.setdefault(tuple(sorted(others)), []).append(arm)
    return {tuple(arms): others for others, arms in sorted(groups.items(), key=lambda group: -len(group[0]))}


def sentences(rows: Sequence[Row]) -> list[str]:
    """Of one setting, all measures: who is better than whom, and which pairs are undecided."""
    said = []
    for place, name in NAMES.items():
        own = at(rows, place)
        for better, worse in wins(_won(own)).items():
            said.append(f"{WHEN[place[1]]}, {_surpass(better, place[0])} than {listed(worse)}.")
        undecided = [f"{row['a']} and {row['b']}" for row in own if row["verdict"] == OPEN]
        if len(undecided) > 4:
            undecided[4:] = [f"{len(undecided) - 4} more pairs"]
        if undecided:
            said.append(f"Undecided, by {name}: {'; '.join(undecided)}.")
    return said


def level_sentences(rows: Sequence[Row]) -> list[str]:
    """Of one factor: which level is better, for which arm."""
    said = []
    for row in rows:
        where = f" ({row['setting']})" if row["setting"] else ""
        for better, worse in _won([row]):
            than = f"with {row['factor']}={better} than with {worse}{where}"
            said.append(f"{WHEN[row['at']]}, {_surpass([row['arm']], row['measure'])} {than}.")
    counts = {what: sum(row["verdict"] == verdict for row in rows) for what, verdict in LEFT.items()}
    left = [f"{what}: {count} of {len(rows)} comparisons." for what, count in counts.items() if count]
    return said + ([" ".join(left)] if left else [])


def grid(rows: Sequence[Row]) -> dict[tuple[str, str], Row]:
    """Both directions of every pair: the verdict in a word, and the difference, row − column."""
    opposite = {"better": "worse", "worse": "better"}
    found = {}
    for row in rows:
        if row["difference"] is not None:
            word = row["verdict"] if row["verdict"] in DECIDED else "undecided"
            found[row["a"], row["b"]] = {"word": word, "difference": row["difference"]}
            found[row["b"], row["a"]] = {"word": opposite.get(word, word), "difference": -row["difference"]}
    return found


def needed(row: Row) -> str:
    """What would decide a pair that is undecided."""
    if row["verdict"] != OPEN:
        return ""
    known = {what: row[f"needed_{what}"] for what in ("replicates", "questions")}
    return " or ".join(f"{n:.0f} {what}" for what, n in known.items() if n is not None) or "nothing that could be said"
