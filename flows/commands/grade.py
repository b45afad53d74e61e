"""`holdfast grade`: a grader tried on texts, as a reward and an evaluation would use it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from holdfast.benchmarks.catalog import GRADERS, grade, grade_leniently
from holdfast.benchmarks.grading.graders import WANTED
from holdfast.errors import UserError

SHOWN = 200
"""Characters of a text or of what was read in it that are printed."""
UNTAGGED = (
    "Texts without <answer> </answer> are graded whole, as if they stood inside; the `format` reward pays none of them."
)


def grade_lines(grader: str, accepted: Sequence[str], texts: Sequence[str]) -> Iterator[str]:
    """Lines to print: every text with what was read in it, the verdict and the score.

    Raises:
        UserError: there is no such grader, or it cannot grade one of the accepted answers.
    """
    check_grader(grader, accepted)
    untagged = False
    for text in _read(texts):
        found = grade(grader, text, accepted[0], accepted)
        verdict = "no answer" if found.parsed is None else "correct" if found.correct else "wrong"
        parsed = "none" if found.parsed is None else _shown(found.parsed)
        yield f"{_shown(text)}\n  parsed: {parsed}   verdict: {verdict}   score: {round(found.score, 4)}"
        lenient = grade_leniently(grader, text, accepted[0], accepted)
        if lenient.parsed is not None and lenient != found:
            read = _shown(lenient.parsed)
            yield f"  read leniently, beside a target's score: {read}   score: {round(lenient.score, 4)}"
        untagged |= "<answer>" not in text
    if untagged:
        yield UNTAGGED


def check_grader(grader: str, accepted: Sequence[str]) -> None:
    """Refuse a grader that is none, and an answer that it would not find right itself."""
    if grader not in GRADERS:
        raise UserError(f"grade: {grader[:40]!r} is no grader; use one of {', '.join(sorted(GRADERS))}.")
    for answer in accepted:
        if not _finds_right(grader, answer):
            wanted = WANTED.get(grader, "an answer of its kind, without <")
            raise UserError(f"--answer: {answer[:60]!r} cannot be graded by {grader!r}; write {wanted}.")


def _finds_right(grader: str, answer: str) -> bool:
    try:
        return bool(answer.strip()) and grade(grader, f"<answer> {answer} </answer>", answer).correct
    except (ValueError, IndexError, ZeroDivisionError):
        # The graders of drawn questions take their own answers for granted.
        return False


def _read(texts: Sequence[str]) -> Iterator[str]:
    for text in texts:
        if text == "-":
            yield from (line.rstrip("\n") for line in sys.stdin)
        else:
            yield text


def _shown(text: str) -> str:
    """On one line, and harmless to a terminal."""
    line = "".join(part if part.isprintable() else " " for part in text)
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}…"
