"""DocVQA (Mathew et al. 2021): short answers about scanned pages, scored by ANLS with its threshold of one half."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.benchmarks.grading.answer import Verdict
from holdfast.benchmarks.grading.lenient import final_answer, without_reasoning
from holdfast.benchmarks.grading.text import majority
from holdfast.benchmarks.public.protocol import Doc, Manner, Marked, Picture, Posed, Source, mean

SOURCES = {
    "docvqa": Source(
        "lmms-lab-encoder/DocVQA",
        "validation",
        ("questionId", "question", "docId", "answers"),
        config="DocVQA",
        revision="539088ef8a8ada01ac8e2e6d4e372586748a265e",
        images=("image",),
        unit=("docId",),
        harness="docvqa_val",
    )
}
SUFFIX = "\nAnswer the question using a single word or phrase."
THRESHOLD = 0.5


def pose(row: Doc, _picture: Picture | None, manner: Manner) -> list[Posed]:
    """The question with its suffix."""
    suffix = SUFFIX if manner.suffix is None else manner.suffix
    answer = majority(row["answers"])
    return [Posed(f"{row['question']}{suffix}", answer, answer, row)]


def grade(completion: str, doc: Doc) -> Verdict:
    """Lenient and strict differ in what is compared: what stands in tags or a box, or all that was written."""
    text = final_answer(completion)
    score, whole = (anls(said, doc["answers"]) for said in (text, without_reasoning(completion)))
    return Verdict(text or None, score >= THRESHOLD, score, whole >= THRESHOLD, whole)


def metrics(rows: Sequence[Marked]) -> dict[str, float]:
    """The mean ANLS."""
    return {"authors_anls": mean([row.authors or 0.0 for row in rows])}


def anls(said: str, accepted: Sequence[str]) -> float:
    """1 − edit distance / length, of the accepted answer that is nearest; 0 below one half (Biten et al. 2019)."""
    return max(_similarity(said, answer) for answer in accepted)


def _similarity(said: str, answer: str) -> float:
    longest = max(len(said.upper()), len(answer.upper()))
    one, other = (" ".join(text.strip().lower().split()) for text in (said, answer))
    if abs(len(one) - len(other)) > longest * THRESHOLD:
        # So much has to be added or left out, however much else differs.
        return 0.0
    similarity = 1.0 - (_distance(one, other) / longest if longest else 0.0)
    return similarity if similarity >= THRESHOLD else 0.0


def _distance(one: str, other: str) -> int:
    """Levenshtein's."""
    row = list(range(len(one) + 1))
    for above, letter in enumerate(other, 1):
        diagonal, row[0] = row[0], above
        for place, own in enumerate(one, 1):
            diagonal, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, diagonal + (own != letter))
    return row[-1]
