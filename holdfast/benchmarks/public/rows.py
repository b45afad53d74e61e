"""Public data sets with annotations, read through `datasets`, and where each of them keeps what.

`KNOWN` has the column mapping of each data set that a target names; others need `columns` in the experiment file.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from holdfast.benchmarks.grading.text import majority
from holdfast.benchmarks.public import gsm8k
from holdfast.benchmarks.question import Annotation, Box
from holdfast.config.targets import Columns, Public
from holdfast.data.hub import load_split
from holdfast.data.pixels import UNREADABLE, rgb
from holdfast.errors import UserError

GSM8K = gsm8k.SOURCES["gsm8k"]
KNOWN = {
    "HuggingFaceM4/FGVC-Aircraft": Columns(label="variant", trim=20),
    "array/SAT": Columns(
        image="image_bytes",
        label="question_type",
        question="question",
        options="answers",
        answer="correct_answer",
        splits=("train", "val", "test"),
    ),
    "detection-datasets/coco": Columns(
        boxes="objects.bbox",
        categories="objects.category",
        box_format="xyxy",
        splits=("train", "val", "val"),
    ),
    **dict.fromkeys(
        ("lmms-lab/RefCOCO", "lmms-lab-encoder/RefCOCO"),
        Columns(caption="answer", boxes="bbox", splits=("val", "val", "testA")),
    ),
    "openai/gsm8k": Columns(image=None, question="question", answer="answer", splits=("train", "train", "test")),
}
"""FGVC-Aircraft's photographs end in 20 lines with the photographer's name. Boxes are in pixels in all of them: COCO's
as corners, RefCOCO's as corner and size; RefCOCO's `answer` lists expressions for the one thing in the box."""

REVISIONS = {
    "HuggingFaceM4/FGVC-Aircraft": "e18a7c97147c90dc7f4a60d74a7f4258e9264e97",
    "array/SAT": "bda5dde942d7f7b41bff7935f086ed9a9e348ae3",
    "detection-datasets/coco": "cf0b22332314a937e9dc8a1957b21725430bb41d",
    "openai/gsm8k": GSM8K.revision,
}
"""FGVC-Aircraft's main branch needs a loading script, which `datasets` no longer runs: the same as Parquet. GSM8K's is
that of the benchmark. SAT's and COCO's are what public code reads (docs/reproduce.md). Of others, `revision` or
today's."""
CONFIGS = {"openai/gsm8k": GSM8K.config}
TEXTS = ("label", "question", "answer", "caption")


def columns_of(public: Public) -> Columns:
    """The mapping of a data set. UserError if nobody gave one."""
    found = public.columns or KNOWN.get(public.name)
    if found is None:
        raise UserError(
            f"target.public: the columns of {public.name} are not known; say them in target.public.columns "
            f"(known: {', '.join(KNOWN)})."
        )
    return found


class PublicRows:
    """The rows of one split; images are decoded when a row is read."""

    def __init__(self, public: Public, split: str) -> None:
        self.public, self.split = public, split
        self.columns = columns_of(public)
        named = self.columns.model_dump(include={"image", *TEXTS, "options", "boxes", "categories"})
        self.paths = {field: path.split(".") for field, path in named.items() if path is not None}
        try:
            revision, config = public.revision or REVISIONS.get(public.name), CONFIGS.get(public.name)
            rows = load_split(public.name, revision, split, config)
        except ValueError as error:
            raise UserError(f"target.public: {error}; check its name, revision and columns.splits.") from error
        for field, (column, *_) in self.paths.items():
            if column not in rows.column_names:
                raise UserError(
                    f"target.public.columns.{field}: {public.name} has no column {column!r}; "
                    f"it has {', '.join(rows.column_names)}."
                )
        self.names = {field: _class_names(rows.features, path) for field, path in self.paths.items()}
        self.rows = rows.select_columns(sorted({path[0] for path in self.paths.values()})).with_format("arrow")

    def __len__(self) -> int:
        return len(self.rows)

    def row(self, index: int, rng: np.random.Generator) -> Annotation | None:
        """A row with its decoded images; None where an image cannot be read. `rng` draws one of several captions."""
        row = self.rows[index].to_pylist()[0]
        values = {field: _pick(row, path) for field, path in self.paths.items()}
        try:
            images = tuple(self._image(image) for image in _listed(values.get("image")))
        except UNREADABLE:
            return None
        captions = _listed(values.get("caption"))
        caption = captions[rng.integers(len(captions))] if captions else None
        answers = [
            answer.get("answer") if isinstance(answer, dict) else answer for answer in _listed(values.get("answer"))
        ]
        accepted = tuple(filter(None, (self._text("answer", answer) for answer in answers)))
        return Annotation(
            images=tuple(_fitted(image, self.public.size) for image in images),
            labels=self.names.get("label") or (),
            options=tuple(str(option) for option in _listed(values.get("options"))),
            boxes=tuple(self._box(box, images[0].size) for box in _boxes(values.get("boxes"))),
            categories=tuple(self._text("categories", kind) for kind in _listed(values.get("categories"))),
            **{field: self._text(field, values.get(field)) for field in ("label", "question")},
            answer=majority(accepted) if accepted else "",
            accepted=accepted if len(accepted) > 1 else (),
            caption=self._text("caption", caption),
        )

    def _image(self, value: Any) -> Image.Image:
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if not value:
            raise ValueError("no image in this row")
        image = rgb(BytesIO(value) if isinstance(value, bytes) else Path(value))
        return image.crop((0, 0, image.width, max(1, image.height - self.columns.trim)))

    def _text(self, field: str, value: Any) -> str:
        names = self.names.get(field)
        if isinstance(value, list):
            # Several classes are no class.
            texts = {self._text(field, part) for part in value}
            return texts.pop() if len(texts) == 1 else ""
        if names and isinstance(value, int):
            return names[value]
        return "" if value is None else str(value).strip()

    def _box(self, box: Sequence[float], size: tuple[int, int]) -> Box:
        """In shares of the sides, and inside the image."""
        x1, y1, x2, y2 = (float(side) for side in box)
        if self.columns.box_format == "xywh":
            x2, y2 = x1 + x2, y1 + y2
        width, height = size if self.columns.box_unit == "pixels" else (1, 1)
        inside = [min(1.0, max(0.0, side)) for side in (x1 / width, y1 / height, x2 / width, y2 / height)]
        return inside[0], inside[1], inside[2], inside[3]


def _class_names(features: Any, path: Sequence[str]) -> tuple[str, ...]:
    """The names behind a column of class numbers; none for any other column."""
    for name in path:
        features = _inside(features)[name]
    return tuple(getattr(_inside(features), "names", ()) or ())


def _inside(feature: Any) -> Any:
    """What a list holds, or the feature itself."""
    while isinstance(feature, list) or hasattr(feature, "feature"):
        feature = feature[0] if isinstance(feature, list) else feature.feature
    return feature


def _pick(value: Any, path: Sequence[str]) -> Any:
    """A value in nested structs; of a list of structs, the list of its values."""
    for position, name in enumerate(path):
        if isinstance(value, list):
            return [_pick(part, path[position:]) for part in value]
        value = None if value is None else value[name]
    return value


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _boxes(value: Any) -> list[Sequence[float]]:
    """One box or several."""
    found = _listed(value)
    return found if not found or isinstance(found[0], list) else [found]


def _fitted(image: Image.Image, longest: int) -> Image.Image:
    small = image.copy()
    small.thumbnail((longest, longest), Image.Resampling.BICUBIC)
    return small
