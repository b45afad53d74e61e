r"""MATH-500 (Lightman et al. 2023, of Hendrycks et al. 2021): answers are expressions, compared by math-verify.

`strict` wants the answer in `\boxed{}`, as the suffix asks. lm-evaluation-harness's `minerva_math500` scores the same
completions alike under `math_verify`; its own prompt has four solved examples instead of the suffix.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from holdfast.benchmarks.grading.answer import Verdict
from holdfast.benchmarks.grading.lenient import boxed, without_reasoning
from holdfast.benchmarks.public.protocol import Doc, Manner, Marked, Picture, Posed, Source, mean
from holdfast.errors import UserError

SOURCES = {
    "math500": Source(
        "HuggingFaceH4/MATH-500",
        "test",
        ("problem", "solution", "answer", "unique_id"),
        revision="6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be",
        harness="minerva_math500",
    )
}
GRADED_BY = ("problem", "solution")
SUFFIX = "\nPlease reason step by step, and put your final answer within \\boxed{}."
"""That of Qwen2.5-Math's evaluation."""
LONGEST = 20_000
"""Characters of a completion, from its end, that math-verify is given."""


def require() -> None:
    """UserError where math-verify is missing."""
    if find_spec("math_verify") is None:
        raise UserError(
            "prior.math500: answers are compared by math-verify, which is missing; "
            "pip install 'math-verify[antlr4_9_3]'."
        )


def pose(row: Doc, _picture: Picture | None, manner: Manner) -> list[Posed]:
    """The problem with its suffix; the solution is the reference."""
    suffix = SUFFIX if manner.suffix is None else manner.suffix
    return [Posed(f"{row['problem']}{suffix}", row["answer"], row["solution"], row)]


def grade(completion: str, doc: Doc) -> Verdict:
    """Right if math-verify finds the completion's expression equal to the solution's."""
    require()
    from math_verify import parse, verify

    text = without_reasoning(completion)[-LONGEST:]
    given = parse(text)
    correct = bool(verify(parse(doc["solution"]), given))
    parsed = None if not given else str(given[-1])
    return Verdict(parsed, correct, float(correct), correct and boxed(text) is not None, float(correct))


def metrics(rows: Sequence[Marked]) -> dict[str, float]:
    """The harness's `math_verify`."""
    return {"authors_math_verify": mean([row.authors or 0.0 for row in rows])}
