"""ARC-Challenge (Clark et al. 2018), asked in words as lm-evaluation-harness's `arc_challenge_chat`.

`config: ARC-Easy` asks the easier half. The answer is begun for the model, "The best answer is", unless `prefill` says
otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.benchmarks.grading.answer import Verdict
from holdfast.benchmarks.grading.lenient import the_option, without_reasoning
from holdfast.benchmarks.public.harness import cut, same
from holdfast.benchmarks.public.protocol import Doc, Manner, Marked, Picture, Posed, Source, mean

SOURCES = {
    "arc": Source(
        "allenai/ai2_arc",
        "test",
        ("id", "question", "choices", "answerKey"),
        config="ARC-Challenge",
        revision="210d026faf9955653af8916fad021475a3f00453",
        harness="arc_challenge_chat",
    )
}
PREFILL = "The best answer is"
UNTIL = ("\n\n", ".")
SUFFIX = (
    '\nYour response should end with "The best answer is [the_answer_letter]" where the [the_answer_letter] is one of '
    "A, B, C or D."
)
_TASK = "Given the following question and four candidate answers (A, B, C and D), choose the best answer.\nQuestion: "


def pose(row: Doc, _picture: Picture | None, manner: Manner) -> list[Posed]:
    """The question with its options."""
    suffix = SUFFIX if manner.suffix is None else manner.suffix
    lines = "".join(f"\n{letter}. {option}" for letter, option in _options(row).items())
    letter = _right(row)
    return [Posed(f"{_TASK}{row['question'].strip()}{lines}{suffix}", letter, f" {letter}", row, PREFILL)]


def _options(row: Doc) -> dict[str, str]:
    return dict(zip("ABCDE", row["choices"]["text"], strict=False))


def _right(row: Doc) -> str:
    """Some questions number their answers."""
    return "ABCDE"[int(row["answerKey"]) - 1] if row["answerKey"].isdecimal() else row["answerKey"]


def grade(completion: str, doc: Doc) -> Verdict:
    """The authors want the letter alone after what was begun for the model."""
    right = _right(doc)
    text = without_reasoning(completion)
    letter = the_option(text, _options(doc))
    strict = same(cut(text, UNTIL).strip(), right)
    return Verdict(letter, letter == right, float(letter == right), strict, float(strict))


def metrics(rows: Sequence[Marked]) -> dict[str, float]:
    """The harness's `exact_match`."""
    return {"authors_accuracy": mean([row.authors or 0.0 for row in rows])}
