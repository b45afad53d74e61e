"""GPQA (Rein et al. 2023): four options that only experts tell apart. A gated set: its owners grant access.

The harness shuffles options anew at every run; here they are shuffled by the study's seed and stay so in the shard.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from holdfast.benchmarks.grading.answer import Verdict
from holdfast.benchmarks.grading.lenient import the_option, without_reasoning
from holdfast.benchmarks.public.harness import INVALID, cut, filtered, same
from holdfast.benchmarks.public.protocol import Doc, Manner, Marked, Picture, Posed, Source, mean
from holdfast.data.world import generator

_WRONG = ("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
SOURCES = {
    "gpqa": Source(
        "Idavidrein/gpqa",
        "train",
        ("Question", "Correct Answer", *_WRONG),
        config="gpqa_diamond",
        revision="633f5ee89ab8ad4522a9f850766b73f62147ffdd",
        harness="gpqa_diamond_cot_zeroshot",
    )
}
GRADED_BY = ("choices", "answer")
SUFFIX = "\nLet's think step by step: "
UNTIL = ("</s>",)
STRICT = r"(?<=The answer is )(.*)(?=.)"
FLEXIBLE = r"(\([A-Z]\))"


def pose(row: Doc, _picture: Picture | None, manner: Manner) -> list[Posed]:
    """The question with its options in an order that the seed and the question decide."""
    listed = [_clean(row[name]) for name in (*_WRONG, "Correct Answer")]
    order = generator("options", manner.seed, row["Question"]).permutation(len(listed))
    choices = [listed[place] for place in order]
    answer = f"({chr(65 + choices.index(listed[-1]))})"
    named = {f"choice{number}": choice for number, choice in enumerate(choices, 1)}
    doc = {"Question": row["Question"], **named, "choices": choices, "answer": answer}
    lines = "".join(f"\n({chr(65 + place)}) {choice}" for place, choice in enumerate(choices))
    suffix = SUFFIX if manner.suffix is None else manner.suffix
    prompt = f"What is the correct answer to this question:{row['Question']}\nChoices:{lines}{suffix}"
    return [Posed(prompt, answer, f"The answer is {answer}.", doc)]


def _clean(text: str | None) -> str:
    """As the harness writes an option, but with what stands in brackets, which names of compounds need."""
    return " " if text is None else text.strip().replace(" [title]", ". ").replace("  ", " ")


def grade(completion: str, doc: Doc) -> Verdict:
    """Strict: the harness's "The answer is …". Authors: its flexible filter, the last letter in brackets."""
    right = doc["answer"].strip("()")
    text = cut(without_reasoning(completion), UNTIL)
    options = {chr(65 + place): choice for place, choice in enumerate(doc["choices"])}
    letter = the_option(text, options)
    strict = same(filtered(STRICT, text), doc["answer"])
    authors = float(same(_flexible(text, doc["choices"]), doc["answer"]))
    return Verdict(letter, letter == right, float(letter == right), strict, authors)


def metrics(rows: Sequence[Marked]) -> dict[str, float]:
    """The harness's `exact_match` under its two filters."""
    return {
        "authors_strict": mean([bool(row.strict) for row in rows]),
        "authors_flexible": mean([row.authors or 0.0 for row in rows]),
    }


def _flexible(text: str, choices: Sequence[str]) -> str:
    """The last (X); else the last option whose text stands there; else the last letter after a colon."""
    found = filtered(FLEXIBLE, text, -1)
    if found != INVALID:
        return found
    letters = [chr(65 + place) for place in range(len(choices))]
    named = {_folded(choice.strip()): letter for choice, letter in zip(choices, letters, strict=True)}
    said = re.findall("|".join(map(re.escape, named)), _folded(text))
    if said and said[-1].strip():
        return f"({named[said[-1].strip()]})" if said[-1].strip() in named else said[-1].strip()
    after = re.findall(rf":[\s]*({'|'.join(letters)})", text)
    return f"({after[-1]})" if after else INVALID


def _folded(text: str) -> str:
    """In small letters, without punctuation."""
    return "".join(letter for letter in text.lower() if not unicodedata.category(letter).startswith("P"))
