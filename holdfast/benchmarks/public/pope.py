"""POPE (Li et al. 2023): is an object in the picture that is not there as often as it is?

`authors_*` take `yes` and `no` alone, as lmms-eval does; `yes_share` is the share of yes among what was answered,
which tells a model that says yes to everything from one that sees (lmms-eval's `pope_yes_ratio` is that of the right
answers).
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.benchmarks.grading.answer import Verdict
from holdfast.benchmarks.grading.lenient import without_reasoning
from holdfast.benchmarks.public.protocol import Doc, Manner, Marked, Picture, Posed, Source, mean
from holdfast.benchmarks.public.yes_no import SUFFIX, said

SOURCES = {
    "pope": Source(
        "lmms-lab-encoder/POPE",
        "test",
        ("question_id", "question", "answer", "image_source", "category"),
        revision="4db1276663dfa5eb8ad16a52d24c31a09e470896",
        images=("image",),
        unit=("image_source",),
        harness="pope",
    )
}


def pose(row: Doc, _picture: Picture | None, manner: Manner) -> list[Posed]:
    """The question with its suffix."""
    suffix = SUFFIX if manner.suffix is None else manner.suffix
    answer = row["answer"].lower().strip()
    return [Posed(f"{row['question'].strip()}{suffix}", answer, answer, row)]


def grade(completion: str, doc: Doc) -> Verdict:
    """`group` is what the authors read: what was written, in small letters."""
    right = doc["answer"].lower().strip()
    text = without_reasoning(completion).lower().strip()
    word = said(completion)
    group = text if text in ("yes", "no") else "other"
    return Verdict(word, word == right, float(word == right), text == right, float(text == right), group)


def metrics(rows: Sequence[Marked]) -> dict[str, float]:
    """Accuracy and F1 of yes by the authors' reading and by the lenient one, and how often yes is said."""
    answered = [row.parsed for row in rows if row.parsed is not None]
    said_yes = {"yes_share": mean([word == "yes" for word in answered])} if answered else {}
    return {
        "authors_accuracy": mean([row.authors or 0.0 for row in rows]),
        "authors_f1": _f1([(row.group, row.answer) for row in rows]),
        "f1": _f1([(row.parsed, row.answer) for row in rows]),
        **said_yes,
    }


def _f1(pairs: Sequence[tuple[str | None, str]]) -> float:
    """Of yes; lmms-eval's recall leaves out questions that were answered by neither word."""
    hits = sum(said == right == "yes" for said, right in pairs)
    false = sum(said == "yes" and right == "no" for said, right in pairs)
    missed = sum(said == "no" and right == "yes" for said, right in pairs)
    precision = hits / (hits + false) if hits + false else 0.0
    recall = hits / (hits + missed) if hits + missed else 0.0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
