"""GSM8K (Cobbe et al. 2021): word problems of school mathematics, with five solved examples.

`strict` wants the examples' `#### 18`; `authors_flexible` takes the last number, whatever it is. Their gap is form.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from holdfast.benchmarks.grading.answer import Verdict
from holdfast.benchmarks.grading.lenient import boxed, without_reasoning
from holdfast.benchmarks.grading.results import the_result
from holdfast.benchmarks.grading.text import normal
from holdfast.benchmarks.public.harness import INVALID, cut, filtered
from holdfast.benchmarks.public.protocol import Doc, Manner, Marked, Picture, Posed, Source, mean

SOURCES = {
    "gsm8k": Source(
        "openai/gsm8k",
        "test",
        ("question", "answer"),
        config="main",
        revision="e53f048856ff4f594e959d75785d2c2d37b678ee",
        harness="gsm8k",
        shots=5,
        examples="train",
    )
}
UNTIL = ("Question:", "</s>", "<|im_end|>")
STRICT = r"#### (\-?[0-9\.\,]+)"
FLEXIBLE = r"(-?[$0-9.,]{2,})|(-?[0-9]+)"
_IGNORED = tuple(map(re.compile, (",", r"\$", r"(?s).*#### ", r"\.$")))


def pose(row: Doc, _picture: Picture | None, manner: Manner) -> list[Posed]:
    """The problem; its answer is what follows ####."""
    return [
        Posed(f"Question: {row['question']}\nAnswer:{manner.suffix or ''}", _bare(row["answer"]), row["answer"], row)
    ]


def example(row: Doc) -> str:
    """A problem with its solution."""
    return f"Question: {row['question']}\nAnswer: {row['answer']}"


def grade(completion: str, doc: Doc) -> Verdict:
    r"""Lenient: the result in the last `\boxed{}`, else after the last ####, else the last number of all."""
    text, right = cut(without_reasoning(completion), UNTIL), _bare(doc["answer"])
    inside = boxed(text)
    marked = re.findall(STRICT, text)
    flexible = filtered(FLEXIBLE, text, -1)
    given = marked[-1] if marked else flexible
    if inside:
        result = the_result(normal(inside))
        given = INVALID if result is None else f"{result:.12g}"
    read = None if given == INVALID else _bare(given)
    correct = read is not None and _same_number(read, right)
    strict = _bare(filtered(STRICT, text)) == right
    return Verdict(read, correct, float(correct), strict, float(_bare(flexible) == right))


def metrics(rows: Sequence[Marked]) -> dict[str, float]:
    """lm-evaluation-harness's `exact_match` under its two filters."""
    return {
        "authors_strict": mean([bool(row.strict) for row in rows]),
        "authors_flexible": mean([row.authors or 0.0 for row in rows]),
    }


def _bare(answer: str) -> str:
    """Without commas, currency, what stands before ####, and a full stop."""
    for pattern in _IGNORED:
        answer = pattern.sub("", answer)
    return answer.lower()


def _same_number(one: str, other: str) -> bool:
    """18 and 18.00 are one number."""
    try:
        return float(one) == float(other)
    except ValueError:
        return one == other
