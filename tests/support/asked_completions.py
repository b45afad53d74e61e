"""Completions of many forms to rows of every public benchmark, to be scored here and by the harnesses.

`python tests/support/asked_completions.py > ASKED.jsonl`
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import prior_sets
from public_sets import SIZE

from holdfast.benchmarks.public.benchmarks import MODULES
from holdfast.benchmarks.public.protocol import Manner, Picture

LETTERS = (
    *("{A}", "{A}.", "({A})", "{A}: it is so", "{A}) this", "The answer is {A}.", "the answer is ({A})"),
    *("I choose {B}", "{A} or {B}", "({A}) and ({B})", "Actually {B} because of {A}", "none of them", "", " {A} "),
    *("**{A}**", "\\boxed{{{A}}}", "Not {B}, so the correct answer is {A}", "It is {text}, I believe, is it not so?"),
    *("{text}", "The best answer is {A}", "A cat, a dog: I cannot say which", "answer is ({B}). No, answer is ({A})."),
    *(
        "The answer is {A}\n\nThe answer is {B}",
        "Step 1: {B}\nStep 2: {A}",
        "<b>{A}</b>",
        "{low}",
        "选{A}",
        "Answer:{A}",
    ),
)
WORDS = ("yes", "Yes", "no", "No.", "Yes, it is", "YES.", "y", "n", "No, yes", "I think so", "", "not", "yeah", " yes ")
NUMBERS = (
    *("#### {n}", "It is {n}.", "#### ${n}.00", "so {n}\n#### 7", "{n} dollars", "no number", "", "\\boxed{{{n}}}"),
    *("#### {n}\n\nQuestion: What is 8?\n#### 8", "9 and {n}", "{n} and 9", "#### {n},000", "#### -{n}", "####{n}"),
)
TEXTS = ("{t}", "{T}", "{t}!", " {t} ", "{t} or more", "The total is {t}", "", "none", "{cut}", "${n}", "x" * 400)
BOXES = (
    *("[0.25, 0.25, 0.75, 0.75]", "[0.2, 0.3, 0.7, 0.8]", "[0,0,1,1]", "It is [0.25,0.25,0.6,0.6].", "none", ""),
    *(
        "[25, 25, 75, 75]",
        "0.25 0.25 0.75 0.75",
        "[0.75, 0.75, 0.25, 0.25]",
        "[0.1, 0.1, 0.2, 0.2] [0.25,0.25,0.75,0.75]",
    ),
)
OPEN = (
    "3.5",
    "so the answer is 3.50",
    "It is 3.5 metres.",
    "x = 7/2 = 3.5",
    "35",
    "about 3.499",
    "",
    "A 3.5\nB 4",
    "three",
)
ANSWERED = (
    *("\\boxed{{{a}}}", "The answer is ${a}$.", "${a}$", "\\boxed{{7}}", "", "It is \\boxed{{{a}}} or so", "{h}"),
    *("Problem: \\boxed{{{a}}}", "\\boxed{{{h}}}\n\nProblem: $8$"),
)


def asked() -> Iterator[dict[str, Any]]:
    """Rows of benchmark, doc and completion; IFEval, whose scorer is the harness's own, is left out."""
    for name in prior_sets.FEATURES:
        if name == "ifeval":
            continue
        module = MODULES[name]
        source = module.SOURCES[name]
        for number in range(6 if name in ("mme", "mmmu", "mmstar") else 2):
            row = prior_sets.MAKERS[name](number)
            kept = {column: row[column] for column in source.columns}
            posed = module.pose(kept, Picture(SIZE, SIZE), Manner(boxes="unit" if name == "refcoco" else None))[0]
            for completion in _completions(name, posed.doc, posed.answer, number):
                yield {"benchmark": name, "doc": posed.doc, "completion": completion}


def _completions(name: str, doc: dict[str, Any], answer: str, number: int) -> list[str]:
    if name in ("pope", "mme"):
        return list(WORDS)
    if name == "refcoco":
        return list(BOXES)
    if name == "docvqa":
        text = doc["answers"][0]
        return [form.format(t=text, T=text.upper(), cut=text[:-2], n=number) for form in TEXTS]
    if name == "gsm8k":
        return [form.format(n=answer) for form in NUMBERS]
    if name == "math500":
        return [form.format(a=answer, h=number / 2) for form in ANSWERED]
    if name == "mmmu" and doc["question_type"] == "open":
        return list(OPEN)
    letter = answer.strip("()")
    other = "B" if letter != "B" else "C"
    text = doc["choices"][ord(letter) - 65] if name == "gpqa" else "a dog"
    return [form.format(A=letter, B=other, low=letter.lower(), text=text) for form in LETTERS]


if __name__ == "__main__":
    for one in asked():
        print(json.dumps(one, ensure_ascii=False))
