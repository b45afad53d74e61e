"""RefCOCO, RefCOCO+ and RefCOCOg (Yu et al. 2016): the box of what an expression means, right at IoU ≥ 0.5.

One question an expression, as in lmms-eval's `refcoco_bbox_rec`, whose prompt and reading are kept where boxes are in
shares (`boxes: unit`). Models that count pixels or thousandths are asked and read in their own way.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from holdfast.benchmarks.grading.answer import Verdict
from holdfast.benchmarks.grading.box_overlap import RIGHT, overlap
from holdfast.benchmarks.grading.boxes import boxes, written
from holdfast.benchmarks.grading.lenient import final_answer, without_reasoning
from holdfast.benchmarks.public.boxes import FAMILIES, Family
from holdfast.benchmarks.public.protocol import Doc, Manner, Marked, Picture, Posed, Source, mean
from holdfast.benchmarks.question import Box

_COLUMNS = ("question_id", "answer", "bbox", "file_name")


def _source(name: str, task: str) -> Source:
    harness = f"{task}_bbox_rec_val"
    return Source(f"lmms-lab-encoder/{name}", "val", _COLUMNS, images=("image",), unit=("file_name",), harness=harness)


SOURCES = {
    "refcoco": _source("RefCOCO", "refcoco"),
    "refcoco-plus": _source("RefCOCOplus", "refcoco+"),
    "refcocog": _source("RefCOCOg", "refcocog"),
}
GRADED_BY = ("answer", "bbox")
ASKED = ("boxes", "size")
"""What a doc of ours says beyond lmms-eval's."""
SHARES = (
    "Bounding box coordinates are specified in the format (top-left x, top-left y, bottom-right x, bottom-right y). "
    "All values are floating point numbers bounded between 0 and 1. Please provide the bounding box coordinate of the "
    "region this sentence describes: {}"
)
"""lmms-eval's."""
JSON = "Locate {}, output its bbox coordinates using JSON format."
"""Qwen's cookbook for spatial understanding."""
MARKS = "Please provide the bounding box coordinate of the region this sentence describes: <ref>{}</ref>"
"""InternVL's evaluation of grounding."""
PROMPTS = {"json": JSON, "list": SHARES, "marks": MARKS}
_FOUR = re.compile(r"\[\s*" + r",\s*".join([r"(-?\d+(?:\.\d+)?)"] * 4) + r"\s*\]")
_MARKED = re.compile(rf"(?:<ref>[^<]*</ref>|[^<\[]*)(?:<box>)?\s*\[{_FOUR.pattern}\]\s*(?:</box>)?")
"""Decoding may leave out the marks, which are special tokens."""
_NAMED = re.compile(r"_\d+(?=\.\w+\Z)|_\d+\Z")


def unit(file_name: str) -> str:
    """The picture that a row is about: COCO_train2014_000000581857_16.jpg is its object 16."""
    return _NAMED.sub("", file_name)


def pose(row: Doc, picture: Picture | None, manner: Manner) -> list[Posed]:
    """A question for each expression. The row's box is corner, width and height in pixels."""
    assert picture is not None
    assert manner.boxes is not None
    family = FAMILIES[manner.boxes]
    x, y, width, height = (float(side) for side in row["bbox"])
    across, down = picture.given
    share = (x / across, y / down, (x + width) / across, (y + height) / down)
    sides = family.written(share, picture.shown)
    found = []
    for expression in row["answer"]:
        doc = {"question_id": row["question_id"], "answer": expression, "bbox": list(share)}
        found.append(
            Posed(
                prompt=PROMPTS[family.form].format(expression) + (manner.suffix or ""),
                answer=" ".join(f"{side:g}" for side in sides),
                reference=_reference(family, expression, sides),
                doc={**doc, "boxes": manner.boxes, "size": list(picture.shown)},
            )
        )
    return found


def grade(completion: str, doc: Doc) -> Verdict:
    """Lenient: the one box, however it is written. Strict: in the form asked for. Authors: the first list in shares."""
    family = FAMILIES[doc.get("boxes", "unit")]
    size = (doc["size"][0], doc["size"][1]) if "size" in doc else (1, 1)
    right = doc["bbox"]
    found = set(boxes(final_answer(completion)) or ())
    given = found.pop() if len(found) == 1 else None
    iou = 0.0 if given is None else overlap(family.shares(given, size), right)
    formed = READERS[family.form](completion)
    strictly = formed is not None and overlap(family.shares(formed, size), right) >= RIGHT
    authors = None if family.form != "list" else _authors(completion, right)
    return Verdict(None if given is None else written([given]), iou >= RIGHT, iou, strictly, authors)


def metrics(rows: Sequence[Marked]) -> dict[str, float]:
    """Accuracy and mean IoU as lmms-eval's `refcoco_ACC@0.5` and `refcoco_IoU`, where boxes are in shares."""
    given = [row.authors for row in rows if row.authors is not None]
    if not given:
        return {}
    return {"authors_accuracy": mean([iou >= RIGHT for iou in given]), "authors_iou": mean(given)}


def doc_of(row: Doc) -> Doc | None:
    """The doc that lmms-eval repeats in its metrics. Its numbers are those of expressions, ours of objects."""
    given = row.get("refcoco_IoU")
    if not isinstance(given, dict):
        return None
    doc = {"question_id": given.get("ann_id"), "answer": given.get("answer"), "bbox": given.get("bbox")}
    return {**doc, **{name: given[name] for name in ASKED if name in given}}


def exported(completion: str, doc: Doc) -> str:
    """What lmms-eval's scorer reads in it: a box in another unit as the list of its shares."""
    family = FAMILIES[doc.get("boxes", "unit")]
    found = boxes(final_answer(completion)) or []
    if family.form == "list" or len(set(found)) != 1:
        return completion
    return json.dumps([round(side, 6) for side in family.shares(found[0], (doc["size"][0], doc["size"][1]))])


def _reference(family: Family, expression: str, sides: list[float]) -> str:
    if family.form == "json":
        return json.dumps({"bbox_2d": sides, "label": expression}, ensure_ascii=False)
    return json.dumps(sides) if family.form == "list" else f"<ref>{expression}</ref><box>[{json.dumps(sides)}]</box>"


def _as_list(completion: str) -> Box | None:
    return _box(_FOUR.fullmatch(without_reasoning(completion).strip()))


def _as_json(completion: str) -> Box | None:
    """The one object with a `bbox_2d`, fenced or not."""
    text = re.sub(r"\A```(?:json)?|```\Z", "", without_reasoning(completion).strip()).strip()
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    sides = value.get("bbox_2d") if isinstance(value, dict) else None
    if not isinstance(sides, list) or len(sides) != 4 or not all(type(side) in (int, float) for side in sides):
        return None
    return sides[0], sides[1], sides[2], sides[3]


def _as_marks(completion: str) -> Box | None:
    return _box(_MARKED.fullmatch(without_reasoning(completion).strip()))


READERS = {"json": _as_json, "list": _as_list, "marks": _as_marks}


def _authors(completion: str, right: Sequence[float]) -> float:
    """IoU of the first list of four numbers; 0 where there is none."""
    given = _box(_FOUR.search(without_reasoning(completion)))
    return 0.0 if given is None else _iou(given, right)


def sides(text: str) -> list[float]:
    """The first list of four numbers; zeros where there is none, as lmms-eval has it."""
    return list(_box(_FOUR.search(without_reasoning(text))) or (0.0, 0.0, 0.0, 0.0))


def _iou(given: Sequence[float], right: Sequence[float]) -> float:
    """lmms-eval's: corners in the wrong order make negative areas, which it does not look at."""
    width = max(0.0, min(given[2], right[2]) - max(given[0], right[0]))
    height = max(0.0, min(given[3], right[3]) - max(given[1], right[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (given, right)]
    union = sum(areas) - width * height
    return width * height / union if union else 0.0


def _box(found: re.Match[str] | None) -> Box | None:
    return None if found is None else (float(found[1]), float(found[2]), float(found[3]), float(found[4]))
