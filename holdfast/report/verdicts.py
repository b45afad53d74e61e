"""Verdicts in words: which arm retains more, which learns more, and what would decide the rest."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from holdfast.report.words import listed

NONE = "no verdict (one replicate)"
OPEN = "not distinguishable"
MATCHED, END = "matched", "end"
PLACES = (("retention", MATCHED), ("retention", END), ("score", END))
MORE = {"retention": "retains more prior knowledge than", "score": "reaches a higher target score than"}
PLURAL = {"retention": "retain more prior knowledge than", "score": "reach a higher target score than"}
WHEN = {MATCHED: "At the same skill", END: "At the end of training"}
NAMES = {
    ("retention", MATCHED): "retention at the same skill",
    ("retention", END): "retention at the end",
    ("score", END): "target score at the end",
}
Row = dict[str, Any]


def alone(rows: Sequence[Row]) -> bool:
    """Whether no pair has a verdict, for want of replicates."""
    return all(row["verdict"] == NONE for row in rows)


def headline(rows: Sequence[Row], arms: Sequence[Row]) -> str:
    """The result in one sentence, without taking sides."""
    if not arms:
        return "No arm has finished training yet."
    pairs = [row for row in rows if row["factor"] == "arm"]
    if len(arms) == 1 or alone(pairs):
        return _measured(arms)
    for measure, at in PLACES:
        known = [row for row in pairs if (row["measure"], row["at"]) == (measure, at) and _known(row)]
        if known:
            return _strongest(known)
    return _measured(arms)


def _measured(trained: Sequence[Row]) -> str:
    """What was measured, with no verdict."""
    if len(trained) == 1:
        row = trained[0]
        return f"The arm {row['arm']} ends with a target score of {row['score']:.2f}{_retained(row)}."
    known = [row for row in trained if _finite(row.get("retention"))]
    if not known:
        return f"{len(trained)} arms were trained."
    least, most = (end(known, key=lambda row: row["retention"]) for end in (min, max))
    return (
        f"At the end of training, retention ranges from {least['retention']:.2f} ({_name(least)}) "
        f"to {most['retention']:.2f} ({_name(most)}); these are single trainings, so this is no verdict."
    )


def _retained(row: Row) -> str:
    return f" and retains {row['retention']:.2f} of its prior accuracy" if _finite(row.get("retention")) else ""


def _name(row: Row) -> str:
    return f"{row['arm']}, {row['setting']}" if row.get("setting") else row["arm"]


def _strongest(rows: Sequence[Row]) -> str:
    """What the group of arms with the most wins is better than; several settings are counted instead."""
    measure, at = rows[0]["measure"], rows[0]["at"]
    decided = [row for row in rows if row["verdict"] in ("better", "worse")]
    subject = {"retention": "prior knowledge retained", "score": "target score"}[measure]
    if not decided:
        return f"{WHEN[at]}, no arm can be told from another by its {subject}."
    if len({row["setting"] for row in rows}) > 1:
        return f"{WHEN[at]}, {len(decided)} of {len(rows)} pairs of arms differ in {subject}."
    groups = wins(rows)
    better, worse = max(groups.items(), key=lambda group: len(group[1]) * 100 + len(group[0]))
    said = f"{WHEN[at]}, {listed(list(better))} {_verb(better, measure)} {listed(list(worse))}"
    open_ = sorted({name for row in rows if row["verdict"] == OPEN for name in (row["a"], row["b"])} - {*better})
    beside = [name for name in open_ if name not in worse]
    return (
        f"{said}; {listed(beside)} cannot be told from {_them(better)}." if beside and len(better) == 1 else f"{said}."
    )


def _them(better: Sequence[str]) -> str:
    return better[0] if len(better) == 1 else "them"


def _verb(better: Sequence[str], measure: str) -> str:
    return (MORE if len(better) == 1 else PLURAL)[measure]


def wins(rows: Iterable[Row]) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Arms that are better than just the same others, with those others; most wins first."""
    beaten: dict[str, list[str]] = {}
    for row in rows:
        first, second = (row["a"], row["b"]) if row["verdict"] == "better" else (row["b"], row["a"])
        if row["verdict"] in ("better", "worse"):
            beaten.setdefault(first, []).append(second)
    groups: dict[tuple[str, ...], list[str]] = {}
    for arm, others in beaten.items():
        groups.setdefault(tuple(sorted(others)), []).append(arm)
    ordered = sorted(groups.items(), key=lambda group: -len(group[0]))
    return {tuple(arms): others for others, arms in ordered}


def sentences(rows: Sequence[Row]) -> list[str]:
    """Of one setting, all measures: who is better than whom, and who cannot be told apart."""
    said = []
    for measure, at in PLACES:
        own = [row for row in rows if (row["measure"], row["at"]) == (measure, at)]
        known = [row for row in own if _known(row)]
        if not known:
            continue
        for better, worse in wins(known).items():
            said.append(f"{WHEN[at]}, {listed(list(better))} {_verb(better, measure)} {listed(list(worse))}.")
        undecided = [row for row in known if row["verdict"] == OPEN]
        if len(undecided) == len(known) > 1:
            said.append(f"No two arms can be told apart by {NAMES[measure, at]}.")
        elif undecided:
            pairs = [f"{row['a']} and {row['b']}" for row in undecided]
            shown = "; ".join(pairs[:4]) + (f"; and {len(pairs) - 4} more pairs" if len(pairs) > 4 else "")
            said.append(f"Not distinguishable by {NAMES[measure, at]}: {shown}.")
    return said


def grid(rows: Sequence[Row], measure: str, at: str) -> dict[tuple[str, str], Row]:
    """Both directions of every pair: verdict, the word for it, and the difference, row − column."""
    found = {}
    for row in rows:
        if (row["measure"], row["at"]) != (measure, at) or not _finite(row["difference"]):
            continue
        turned = {"better": "worse", "worse": "better"}.get(row["verdict"], row["verdict"])
        for names, verdict, sign in (((row["a"], row["b"]), row["verdict"], 1), ((row["b"], row["a"]), turned, -1)):
            word = {"better": "better", "worse": "worse", OPEN: "undecided"}.get(verdict, "no verdict")
            found[names] = {"verdict": verdict.split(" ")[0], "word": word, "difference": sign * row["difference"]}
    return found


def needed(row: Row) -> str:
    """What would decide a pair that is open."""
    if row["verdict"] != OPEN:
        return ""
    replicates, questions = row.get("needed_replicates"), row.get("needed_questions")
    ways = []
    if _finite(replicates):
        ways.append(f"{replicates:.0f} replicates")
    if _finite(questions):
        ways.append(f"{questions:.0f} questions")
    return " or ".join(ways) or "more than can be said"


def _known(row: Row) -> bool:
    return row["verdict"] in ("better", "worse", OPEN)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
