"""IFEval (Zhou et al. 2023): prompts with instructions that a program can check: that of lm-evaluation-harness.

`correct` is the authors' loose reading (first or last line, or asterisks, left out), `strict` their strict one; both of
whole prompts. `score` and `authors` are shares of a prompt's instructions, loose and strict, and `group` their number.
There is no right answer to learn from, so no log-probability and no influence.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from holdfast.benchmarks.grading.answer import Verdict
from holdfast.benchmarks.grading.lenient import without_reasoning
from holdfast.benchmarks.public.protocol import Doc, Manner, Marked, Picture, Posed, Source, mean
from holdfast.errors import UserError

SOURCES = {
    "ifeval": Source(
        "google/IFEval",
        "train",
        ("key", "prompt", "instruction_id_list", "kwargs"),
        revision="966cd89545d6b6acfd7638bc708b98261ca58e84",
        harness="ifeval",
    )
}
REMEDY = 'pip install "lm-eval[ifeval]"'


def require() -> None:
    """UserError where the checks of instructions are missing."""
    for package in ("lm_eval", "langdetect", "nltk", "immutabledict"):
        if find_spec(package) is None:
            raise UserError(f"prior.ifeval: answers are checked by lm-eval, and {package} is missing; {REMEDY}.")
    import nltk

    try:
        nltk.data.find("tokenizers/punkt_tab")
    except LookupError:
        raise UserError(
            "prior.ifeval: nltk's data to split sentences is missing; python -m nltk.downloader punkt_tab."
        ) from None


def pose(row: Doc, _picture: Picture | None, manner: Manner) -> list[Posed]:
    """The prompt alone."""
    return [Posed(f"{row['prompt']}{manner.suffix or ''}", "", "", row)]


def grade(completion: str, doc: Doc) -> Verdict:
    """Each instruction, checked loosely and strictly."""
    require()
    from lm_eval.tasks.ifeval.utils import process_results

    found = process_results(doc, [without_reasoning(completion)])
    loose, strict = found["inst_level_loose_acc"], found["inst_level_strict_acc"]
    return Verdict(completion or None, all(loose), mean(loose), all(strict), mean(strict), str(len(loose)))


def metrics(rows: Sequence[Marked]) -> dict[str, float]:
    """The harness's four."""
    numbers = [int(row.group or 1) for row in rows]
    total = sum(numbers)
    return {
        "authors_prompt_strict": mean([bool(row.strict) for row in rows]),
        "authors_prompt_loose": mean([row.correct for row in rows]),
        "authors_instruction_strict": sum(n * (row.authors or 0.0) for n, row in zip(numbers, rows, strict=True))
        / total,
        "authors_instruction_loose": sum(n * row.score for n, row in zip(numbers, rows, strict=True)) / total,
    }
