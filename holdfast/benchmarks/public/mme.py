"""MME (Fu et al. 2023): two yes-or-no questions a picture, in fourteen categories.

`authors_perception` (of 2000) and `authors_cognition` (of 800) sum accuracy and accuracy⁺, both questions right, over
categories. Questions are drawn by pairs, without which accuracy⁺ has no meaning.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.benchmarks.grading.answer import Verdict
from holdfast.benchmarks.grading.lenient import without_reasoning
from holdfast.benchmarks.public.protocol import Doc, Manner, Marked, Picture, Posed, Source, mean
from holdfast.benchmarks.public.yes_no import SUFFIX, WORDS, said

SOURCES = {
    "mme": Source(
        "lmms-lab-encoder/MME",
        "test",
        ("question_id", "question", "answer", "category"),
        revision="d6c9023f017b564f7b3ccccf5348166bce8fdbcd",
        images=("image",),
        unit=("category", "question_id"),
        harness="mme",
    )
}
ASKED = " Please answer yes or no."
"""Ends every question of the data set; the suffix replaces it."""
COGNITION = frozenset({"commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning"})


def pose(row: Doc, _picture: Picture | None, manner: Manner) -> list[Posed]:
    """The question with the suffix for its own request."""
    question = row["question"].strip()
    suffix = SUFFIX if manner.suffix is None else manner.suffix
    prompt = f"{question.replace(ASKED, '')}{suffix}" if suffix else question
    answer = row["answer"].lower().strip().replace(".", "")
    return [Posed(prompt, answer, answer.capitalize(), row)]


def grade(completion: str, doc: Doc) -> Verdict:
    """`group` is the pair, below its category."""
    right = doc["answer"].lower().strip().replace(".", "")
    text = without_reasoning(completion).lower().strip().replace(".", "")
    word, begun = said(completion), _begun(text)
    group = f"{doc['category']}/{doc['question_id']}"
    return Verdict(word, word == right, float(word == right), text == right, float(begun == right), group)


def _begun(text: str) -> str | None:
    """The word that the first four characters hold; a single letter stands for it."""
    if len(text) == 1:
        return {"y": "yes", "n": "no"}.get(text)
    return next((word for word in WORDS if word in text[:4]), None)


def metrics(rows: Sequence[Marked]) -> dict[str, float]:
    """The authors' sums over categories, and accuracy⁺: pairs of which both are right. An unpaired row counts in
    neither."""
    pairs: dict[str, list[Marked]] = {}
    for row in rows:
        pairs.setdefault(row.group or "", []).append(row)
    whole = {name: pair for name, pair in pairs.items() if len(pair) == 2}
    if not whole:
        return {}
    categories: dict[str, list[float]] = {}
    for name, pair in whole.items():
        scores = [row.authors or 0.0 for row in pair]
        categories.setdefault(name.partition("/")[0], []).append(100 * (mean(scores) + (sum(scores) == 2)))
    sums = {
        kind: sum(mean(scores) for category, scores in categories.items() if (category in COGNITION) == thinks)
        for kind, thinks in (("authors_perception", False), ("authors_cognition", True))
        if any((category in COGNITION) == thinks for category in categories)
    }
    return {**sums, "accuracy_plus": mean([all(row.correct for row in pair) for pair in whole.values()])}
