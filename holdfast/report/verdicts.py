"""Verdicts in words: which arm retains more, which learns more, and what would decide the rest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from holdfast.report.words import listed

OPEN, ALONE = "not distinguishable", "no verdict (one replicate)"
DECIDED = ("better", "worse")
PLACES = (("retention", "matched"), ("retention", "end"), ("score", "end"))
"""Measures, and where they are compared, in the order of what matters."""
TITLES = ("retention at the same skill", "retention at the end", "target score at the end")
NAMES = dict(zip(PLACES, TITLES, strict=True))
WHEN = {"matched": "At the same skill", "end": "At the end of training"}
VERBS = {"retention": ("retain", "more prior knowledge"), "score": ("reach", "a higher target score")}
Row = dict[str, Any]


def alone(rows: Sequence[Row]) -> bool:
    """Whether there is no verdict, for want of replicates."""
    words = {row["verdict"] for row in rows}
    return ALONE in words and not words & {*DECIDED, OPEN}


def headline(rows: Sequence[Row], arms: Sequence[Row]) -> str:
    """The result in one sentence, without taking sides."""
    pairs = [row for row in rows if row["factor"] == "arm" and row["verdict"] in (*DECIDED, OPEN)]
    for place in PLACES:
        if known := at(pairs, place):
            return _strongest(known, place)
    return _measured(arms)


def at(rows: Sequence[Row], place: tuple[str, str]) -> list[Row]:
    """The comparisons of a measure."""
    return [row for row in rows if (row["measure"], row["at"]) == place]


def _measured(arms: Sequence[Row]) -> str:
    """What was measured, where there is no verdict."""
    known = [row for row in arms if row["retention"] is not None]
    if not known:
        return f"{len(arms)} arms were trained." if arms else "No arm has finished training yet."
    least, most = (end(known, key=lambda row: row["retention"]) for end in (min, max))
    if least is most:
        ends = f"ends with a target score of {least['score']:.2f}"
        return f"The arm {_name(least)} {ends} and retains {least['retention']:.2f} of its prior accuracy."
    kept = (f"{row['retention']:.2f} ({_name(row)})" for row in (least, most))
    return f"At the end of training, retention ranges from {' to '.join(kept)}. Single trainings give no verdict."


def _name(row: Row) -> str:
    return f"{row['arm']}, {row['setting']}" if row["setting"] else row["arm"]


def _strongest(rows: Sequence[Row], place: tuple[str, str]) -> str:
    """What the arms with the most wins are better than; of several settings, in all of them."""
    settings = {row["setting"] for row in rows}
    decided = [pair for row in rows if (pair := _won(row))]
    always = [pair for pair in dict.fromkeys(decided) if decided.count(pair) == len(settings)]
    where = f"{WHEN[place[1]]}{', in every setting' if len(settings) > 1 else ''}"
    if always:
        better, worse = max(wins(always).items(), key=lambda group: (len(group[1]), len(group[0])))
        return f"{where}, {_sentence(better, worse, place[0])}."
    if decided:
        return (
            f"{WHEN[place[1]]}, {len(decided)} of {len(rows)} pairs of arms differ in {NAMES[place].split(' at ')[0]}."
        )
    return f"{WHEN[place[1]]}, no arm is distinguishable from another by its {NAMES[place].split(' at ')[0]}."


def _sentence(better: Sequence[str], worse: Sequence[str], measure: str) -> str:
    verb, what = VERBS[measure]
    ending = ("es" if verb.endswith("ch") else "s") if len(better) == 1 else ""
    return f"{listed(better)} {verb}{ending} {what} than {listed(worse)}"


def _won(row: Row) -> tuple[str, str] | None:
    """(better, worse), where there is a verdict."""
    if row["verdict"] not in DECIDED:
        return None
    return (row["a"], row["b"]) if row["verdict"] == "better" else (row["b"], row["a"])


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
    for place in PLACES:
        own = at(rows, place)
        pairs = [pair for row in own if (pair := _won(row))]
        for better, worse in wins(pairs).items():
            said.append(f"{WHEN[place[1]]}, {_sentence(better, worse, place[0])}.")
        undecided = [f"{row['a']} and {row['b']}" for row in own if row["verdict"] == OPEN]
        if undecided:
            more = [f"{len(undecided) - 4} more pairs"] if len(undecided) > 4 else []
            said.append(f"Undecided, by {NAMES[place]}: {'; '.join([*undecided[:4], *more])}.")
    return said


def level_sentences(rows: Sequence[Row]) -> list[str]:
    """Of one factor: which level is better, for which arm."""
    said = []
    for row in rows:
        if pair := _won(row):
            verb, what = VERBS[row["measure"]]
            ending = "es" if verb.endswith("ch") else "s"
            where = f" ({row['setting']})" if row["setting"] else ""
            who = f"{row['arm']} {verb}{ending} {what}"
            said.append(f"{WHEN[row['at']]}, {who} with {row['factor']}={pair[0]} than with {pair[1]}{where}.")
    undecided = sum(row["verdict"] == OPEN for row in rows)
    return said + ([f"Undecided: {undecided} of {len(rows)} comparisons."] if undecided else [])


def grid(rows: Sequence[Row]) -> dict[tuple[str, str], Row]:
    """Both directions of every pair: the verdict in a word, and the difference, row − column."""
    found = {}
    for row in rows:
        if row["difference"] is None:
            continue
        pair = _won(row)
        for first, second, sign in ((row["a"], row["b"], 1), (row["b"], row["a"], -1)):
            word = "undecided" if pair is None else "better" if pair[0] == first else "worse"
            found[first, second] = {"word": word, "difference": sign * row["difference"]}
    return found


def needed(row: Row) -> str:
    """What would decide a pair that is undecided."""
    if row["verdict"] != OPEN:
        return ""
    known = {what: row[f"needed_{what}"] for what in ("replicates", "questions")}
    return " or ".join(f"{n:.0f} {what}" for what, n in known.items() if n is not None) or "nothing that could be said"
