"""MMLU-Pro (Wang et al. 2024): ten options, five solved examples of the same subject, reasoning asked for.

The authors read "answer is (X)" alone; `correct` also reads a boxed letter, a bare one, or the option's own text.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.benchmarks.grading.answer import Verdict
from holdfast.benchmarks.grading.lenient import the_option, without_reasoning
from holdfast.benchmarks.public.harness import cut, filtered, same
from holdfast.benchmarks.public.protocol import Doc, Manner, Marked, Picture, Posed, Source, mean

SOURCES = {
    "mmlu-pro": Source(
        "TIGER-Lab/MMLU-Pro",
        "test",
        ("question_id", "question", "options", "answer", "cot_content", "category"),
        revision="527feea0afed1de15a8c115abf7be4c912123315",
        harness="mmlu_pro",
        shots=5,
        examples="validation",
    )
}
LETTERS = "ABCDEFGHIJ"
ALIKE = "category"
"""Solved examples are of the question's own."""
UNTIL = ("Question:",)
PATTERN = r"answer is \(?([ABCDEFGHIJ])\)?"
_TASK = (
    "The following are multiple choice questions (with answers) about {}. Think step by step and then finish your "
    'answer with "the answer is (X)" where X is the correct letter choice.\n'
)


def opening(row: Doc) -> str:
    """What stands before the examples."""
    return _TASK.format(row["category"])


def pose(row: Doc, _picture: Picture | None, manner: Manner) -> list[Posed]:
    """The question with its options."""
    prompt = f"{_asked(row)}{manner.suffix or ''}"
    return [Posed(prompt, row["answer"], f"The answer is ({row['answer']}).", row)]


def example(row: Doc) -> str:
    """A question with its reasoned answer."""
    reasoned = row["cot_content"].replace("A: Let's think step by step. ", "")
    return f"{_asked(row)} {reasoned}"


def _asked(row: Doc) -> str:
    lines = "".join(f"{letter}. {option.strip()}\n" for letter, option in _options(row).items())
    return f"Question:\n{row['question']}\nOptions:\n{lines}Answer: Let's think step by step."


def _options(row: Doc) -> dict[str, str]:
    return dict(zip(LETTERS, row["options"], strict=False))


def grade(completion: str, doc: Doc) -> Verdict:
    """`group` is the subject."""
    text = cut(without_reasoning(completion), UNTIL)
    letter = the_option(text, _options(doc))
    strict = same(filtered(PATTERN, text), doc["answer"])
    return Verdict(
        letter, letter == doc["answer"], float(letter == doc["answer"]), strict, float(strict), doc["category"]
    )


def metrics(rows: Sequence[Marked]) -> dict[str, float]:
    """Over all questions, as the harness weighs subjects by their questions."""
    return {"authors_accuracy": mean([row.authors or 0.0 for row in rows])}
