"""Small local copies of public benchmarks: their columns, types, configurations and splits, pictures of noise.

`right` has for each benchmark the completion that its authors' metric finds right, by the row's number.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
from public_sets import SIZE, photograph, write

TEXT, NUMBER = datasets.Value("string"), datasets.Value("int64")
TEXTS = datasets.List(TEXT)
ROWS = 24
KINDS = ("existence", "count", "code_reasoning")
SUBJECTS = ("law", "physics")


def _picture(number: int) -> dict[str, Any]:
    return photograph(number, "PNG")


def refcoco(number: int) -> dict[str, Any]:
    """Two expressions a row, three objects a picture; the box is the middle quarter, as corner and size."""
    return {
        "question_id": str(number),
        "image": _picture(number // 3),
        "question": "Please carefully observe the area circled in the image.",
        "answer": [f"man {number}", f"person number {number}"],
        "segmentation": [1.0, 2.0],
        "bbox": [SIZE[0] / 4, SIZE[1] / 4, SIZE[0] / 2, SIZE[1] / 2],
        "iscrowd": 0,
        "file_name": f"COCO_train2014_{number // 3:012d}_{number}.jpg",
    }


def docvqa(number: int) -> dict[str, Any]:
    """Three questions a page."""
    return {
        "questionId": str(number),
        "question": f"What is the total of page {number}?",
        "question_types": ["form"],
        "image": _picture(number // 3),
        "docId": number // 3,
        "answers": [f"{number} dollars", f"${number}"],
    }


def mme(number: int) -> dict[str, Any]:
    """Pairs of questions about one picture."""
    kind = KINDS[number // 2 % 3]
    return {
        "question_id": f"{kind}/{number // 2:04d}.png",
        "image": _picture(number // 2),
        "question": f"Is this picture {number}? Please answer yes or no.",
        "answer": ("Yes", "No")[number % 2],
        "category": kind,
    }


def mmstar(number: int) -> dict[str, Any]:
    return {
        "index": number,
        "question": f"What is seen in {number}?\nOptions: A: a cat, B: a dog, C: a bird, D: a red fish",
        "image": _picture(number),
        "answer": "ABCD"[number % 4],
        "category": "math",
        "l2_category": ("geometry", "recognition", "localization")[number % 3],
        "meta_info": {"source": "MMMU"},
    }


def mmmu(number: int) -> dict[str, Any]:
    """Every third question is open; some show two pictures."""
    is_open = number % 3 == 2
    shown = 2 if number % 2 else 1
    return {
        "id": f"validation_{('Math', 'Art_Theory')[number % 2]}_{number}",
        "question": "What is it in " + " and ".join(f"<image {place}>" for place in range(1, shown + 1)) + "?",
        "options": "[]" if is_open else "['a cat', 'a dog', 'a bird']",
        "answer": "3.5" if is_open else "ABC"[number % 3],
        "question_type": "open" if is_open else "multiple-choice",
        **{f"image_{place}": _picture(10 * number + place) if place <= shown else None for place in range(1, 8)},
    }


def pope(number: int) -> dict[str, Any]:
    """Six questions a picture."""
    return {
        "id": str(number),
        "question_id": str(number),
        "question": f"Is there a cat in picture {number}?",
        "answer": ("yes", "no")[number % 2],
        "image_source": f"COCO_val2014_{number // 6:012d}",
        "image": _picture(number // 6),
        "category": "adversarial",
    }


def gsm8k(number: int) -> dict[str, Any]:
    return {"question": f"What is {number} times 100?", "answer": f"It is <<1=1>>so.\n#### {number},00"}


def math500(number: int) -> dict[str, Any]:
    return {
        "problem": f"What is {number} halves?",
        "solution": f"It is $\\boxed{{\\frac{{{number}}}{{2}}}}$.",
        "answer": f"\\frac{{{number}}}{{2}}",
        "subject": "Algebra",
        "level": 1,
        "unique_id": f"test/algebra/{number}.json",
    }


def mmlu_pro(number: int) -> dict[str, Any]:
    place = number % 10
    return {
        "question_id": number,
        "question": f"Which is {number}?",
        "options": [f"thing {letter}" for letter in "ABCDEFGHIJ"],
        "answer": "ABCDEFGHIJ"[place],
        "answer_index": place,
        "cot_content": f"A: Let's think step by step. It is plain. The answer is ({'ABCDEFGHIJ'[place]}).",
        "category": SUBJECTS[number % 2],
        "src": "ori",
    }


def arc(number: int) -> dict[str, Any]:
    """Some questions number their answers."""
    labels = "ABCD" if number % 2 else "1234"
    choices = {"text": ["a cat", "a dog", "a bird", "a fish"], "label": list(labels)}
    return {"id": f"M_{number}", "question": f"Which barks ({number})?", "choices": choices, "answerKey": labels[1]}


def ifeval(number: int) -> dict[str, Any]:
    nothing = {"num_highlights": None, "relation": None, "num_words": None, "keywords": None}
    return {
        "key": number,
        "prompt": f"Write about {number} without commas, with the word cat.",
        "instruction_id_list": ["punctuation:no_comma", "keywords:existence"],
        "kwargs": [nothing, {**nothing, "keywords": ["cat"]}],
    }


def gpqa(number: int) -> dict[str, Any]:
    wrong = {f"Incorrect Answer {place}": f"wrong {place} of {number}" for place in (1, 2, 3)}
    return {"Question": f"What is {number}?", "Correct Answer": f"truth {number}", **wrong, "Record ID": str(number)}


IMAGE = {"image": datasets.Image()}
FEATURES: dict[str, dict[str, Any]] = {
    "refcoco": {
        **{"question_id": TEXT, **IMAGE, "question": TEXT, "answer": TEXTS, "iscrowd": NUMBER, "file_name": TEXT},
        **{name: datasets.List(datasets.Value("float32")) for name in ("segmentation", "bbox")},
    },
    "docvqa": {
        "questionId": TEXT,
        "question": TEXT,
        "question_types": TEXTS,
        **IMAGE,
        "docId": NUMBER,
        "answers": TEXTS,
    },
    "mme": {"question_id": TEXT, **IMAGE, "question": TEXT, "answer": TEXT, "category": TEXT},
    "mmstar": {
        **{"index": NUMBER, "question": TEXT, **IMAGE, "answer": TEXT, "category": TEXT, "l2_category": TEXT},
        "meta_info": {"source": TEXT},
    },
    "mmmu": {
        **dict.fromkeys(("id", "question", "options", "answer", "question_type"), TEXT),
        **{f"image_{place}": datasets.Image() for place in range(1, 8)},
    },
    "pope": {**dict.fromkeys(("id", "question_id", "question", "answer", "image_source", "category"), TEXT), **IMAGE},
    "gsm8k": {"question": TEXT, "answer": TEXT},
    "math500": {
        **dict.fromkeys(("problem", "solution", "answer", "subject", "unique_id"), TEXT),
        "level": NUMBER,
    },
    "mmlu-pro": {
        **dict.fromkeys(("question", "answer", "cot_content", "category", "src"), TEXT),
        **{"question_id": NUMBER, "options": TEXTS, "answer_index": NUMBER},
    },
    "arc": {"id": TEXT, "question": TEXT, "choices": {"text": TEXTS, "label": TEXTS}, "answerKey": TEXT},
    "ifeval": {
        **{"key": NUMBER, "prompt": TEXT, "instruction_id_list": TEXTS},
        "kwargs": datasets.List(
            {"num_highlights": NUMBER, "relation": TEXT, "num_words": NUMBER, "keywords": TEXTS},
        ),
    },
    "gpqa": dict.fromkeys(
        ("Question", "Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3", "Record ID"),
        TEXT,
    ),
}
MAKERS: dict[str, Callable[[int], dict[str, Any]]] = {
    **{name: globals()[name] for name in FEATURES if name != "mmlu-pro"},
    "mmlu-pro": mmlu_pro,
}
SPLITS = {
    "refcoco": ("val",),
    "docvqa": ("validation",),
    "mmstar": ("val",),
    "mmmu": ("validation",),
    "gsm8k": ("train", "test"),
    "mmlu-pro": ("validation", "test"),
    "ifeval": ("train",),
    "gpqa": ("train",),
}
"""`test` alone for the others."""


def copy(folder: Path, benchmark: str, rows: int = ROWS) -> Path:
    """A local copy with so many rows in every split."""
    made = [MAKERS[benchmark](number) for number in range(rows)]
    splits = dict.fromkeys(SPLITS.get(benchmark, ("test",)), made)
    return write(folder, datasets.Features(FEATURES[benchmark]), splits)
