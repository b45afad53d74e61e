"""The targets: every skill that a study can teach. Imports no torch."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveInt, model_validator

from holdfast.config.base import Config, HubOrPath, LocalPath


class Asked(Config):
    """How a target asks for its answers."""

    thinking: bool = True
    """Ask for reasoning in <think> tags before the answer."""
    system: str | None = None
    """A system prompt for its questions; by default the model's own."""
    prefill: str | None = None
    """How every answer begins, as a part of the prompt: the model goes on from there, in training and evaluation. A tag
    that it opens, as in "Let me solve this step by step.\n<think>", is graded with what the model adds."""

    @model_validator(mode="after")
    def _one_tag_is_opened(self) -> Self:
        tags, first = re.findall("</?(?:think|answer)>", self.prefill or ""), "<think>" if self.thinking else "<answer>"
        if tags not in ([], [first]):
            how = "true" if self.thinking else "false"
            raise ValueError(
                f"prefill: with `thinking: {how}` an answer begins with {first}; open that alone, or no tag"
            )
        return self


class Jigsaw(Asked):
    """The default target: put the shuffled pieces of an image back in order."""

    benchmark: Literal["jigsaw"] = "jigsaw"
    grid: tuple[PositiveInt, PositiveInt] = (2, 2)
    """Rows and columns."""
    layout: Literal["composite", "pieces"] = "composite"
    """One image of the shuffled pieces, or every piece as an image of its own."""
    question: Literal["full", "pair"] = "full"
    """The order of all pieces, or how the second of two pieces lies relative to the first."""
    index_base: Literal[0, 1] = 1
    """Number of the first position."""
    wording: Literal["position-to-piece", "piece-to-position"] = "position-to-piece"
    """What the answer lists: for every position the piece that belongs there, or for every piece its position."""
    per_class: PositiveInt | None = None
    """Keep this many of the training puzzles of each answer, to study few shots."""
    train: PositiveInt = 2000
    """Puzzles to learn from; the three splits are cut from disjoint images."""
    validation: PositiveInt = 64
    test: PositiveInt = 200

    @model_validator(mode="after")
    def _more_than_one_piece(self) -> Self:
        if self.grid[0] * self.grid[1] < 2:
            raise ValueError("grid: a puzzle needs at least two pieces, for example [2, 2]")
        return self


class Columns(Config):
    """Where a data set keeps what a target asks about: column names, with dots into structs (objects.bbox)."""

    image: str | None = "image"
    """An image, or a list of images; null for questions in text."""
    label: str | None = None
    """The class; a number stands for its name in the data set's features."""
    question: str | None = None
    answer: str | None = None
    """Text, or a list of accepted answers (answers.answer, where each is a struct)."""
    options: str | None = None
    """All answers that the question offers, the right one among them."""
    caption: str | None = None
    """Text, or a list of texts of which one is drawn: what an image shows, or what to find in it."""
    boxes: str | None = None
    """One box of four numbers, or a list of them."""
    categories: str | None = None
    """The class of each box."""
    box_format: Literal["xywh", "xyxy"] = "xywh"
    box_unit: Literal["pixels", "share"] = "pixels"
    """`share`: from 0 to 1, of the image's sides."""
    trim: NonNegativeInt = 0
    """Pixels to cut off at the bottom of every image."""
    splits: tuple[str, str, str] = ("train", "validation", "test")
    """Where training, validation and test questions are drawn from; a name that stands twice is dealt out."""


class Public(Config):
    """A data set with annotations, from the Hugging Face Hub or from a local directory."""

    name: HubOrPath
    revision: str | None = None
    columns: Columns | None = None
    """By default those that holdfast/benchmarks/public/rows.py knows for this name."""
    size: PositiveInt = 448
    """Larger images are scaled down to this longer side, in pixels."""


def _hub_id(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


PublicData = Annotated[Public, BeforeValidator(_hub_id)]


class Skill(Asked):
    """What all targets but the jigsaw share; without a data set, they draw their own questions."""

    difficulty: float = Field(default=0.5, ge=0, le=1)
    """Of what is drawn, from 0 (easy) to 1."""
    per_class: PositiveInt | None = None
    """Keep this many of the training questions of each class (category, kind of question), to study few shots."""
    train: PositiveInt = 2000
    """Questions to learn from; the three splits share no image."""
    validation: PositiveInt = 64
    test: PositiveInt = 200


class Classes(Skill):
    """Fine-grained classification: which of some kinds of aircraft is it?"""

    benchmark: Literal["classes"]
    classes: int = Field(default=8, ge=2, le=16)
    """Kinds of aircraft that are drawn."""
    names: bool = True
    """Give the classes' names in the question."""
    public: PublicData | None = None
    """For example HuggingFaceM4/FGVC-Aircraft."""


class Spatial(Skill):
    """Spatial aptitude: relations, counting and perspective."""

    benchmark: Literal["spatial"]
    public: PublicData | None = None
    """For example array/SAT."""


class Banner(Skill):
    """Questions about advertisements: headline, price, call to action, layout."""

    benchmark: Literal["banner"]
    path: LocalPath | None = None
    """Your own, as JSONL or Parquet with image, question, answer and, if you like, grader and reasoning."""
    test_path: LocalPath | None = None
    """Test questions in a file of the same kind, where a data set sets some apart: `test` of them, drawn by the seed.
    `path` is then dealt out to training and validation, but for rows that show an image of that file."""
    grader: str = "exact"
    r"""Of your own: `exact`, `number`, `choice`, `box`, `boxed`, `contains`, `detection` or `vqa` (docs/graders.md); a
    `grader` column overrides it row by row, but names `boxed` only where it stands here. A question that is graded by
    `boxed` says itself how it is answered, in `\boxed{}`: no tags are asked for (say `thinking: false`), and what is
    learned is the box, after the reasoning of a teacher."""

    @property
    def boxed(self) -> bool:
        """Whether its questions say themselves how they are answered, without tags."""
        return self.path is not None and self.grader == "boxed"

    @model_validator(mode="after")
    def _tests_are_beside_what_is_learned(self) -> Self:
        if self.test_path is not None and self.path is None:
            raise ValueError("test_path: needs `path`, the questions to learn from; name it")
        return self

    @model_validator(mode="after")
    def _no_tags_beside_a_box(self) -> Self:
        if self.boxed and self.thinking:
            raise ValueError(
                "thinking: with `grader: boxed` a question says itself how it is answered, and no tags are asked for; "
                "set it to false"
            )
        if self.boxed and "<answer>" in (self.prefill or ""):
            raise ValueError("prefill: with `grader: boxed` no tags are asked for; leave <answer> out")
        return self


class Detection(Skill):
    """Where is every thing of a kind, or the one thing that an expression means?"""

    benchmark: Literal["detection"]
    find: Literal["all", "one"] = "all"
    raster: PositiveInt = 16
    """Boxes are in so many parts of the image's sides; large models are used to 1000."""
    public: PublicData | None = None
    """For example detection-datasets/coco or lmms-lab/RefCOCO."""


class Counting(Skill):
    """Which number belongs in the caption of an image?"""

    benchmark: Literal["counting"]
    public: PublicData | None = None
    """Any data set with captions, for example {name: owner/data, columns: {caption: caption}}."""


class Arithmetic(Skill):
    """Word problems of several steps whose answer is a number, in text alone."""

    benchmark: Literal["arithmetic"]
    public: PublicData | None = None
    """For example openai/gsm8k."""


def _jigsaw_if_unnamed(value: Any) -> Any:
    return {"benchmark": "jigsaw", **value} if isinstance(value, dict) else value


def _named(value: Any) -> Any:
    """Targets by their benchmark's name, which stands in front of each as its key."""
    if not isinstance(value, dict):
        return value
    for name, fields in value.items():
        given = fields.get("benchmark", name) if isinstance(fields, dict) else name
        if given != name:
            raise ValueError(f"{name}: says `benchmark: {given}`; name it {given}, as each benchmark stands here once")
    return {n: {"benchmark": n, **(f or {})} if isinstance(f, dict | None) else f for n, f in value.items()}


Target = Annotated[
    Annotated[
        Jigsaw | Classes | Spatial | Banner | Detection | Counting | Arithmetic, Field(discriminator="benchmark")
    ],
    BeforeValidator(_jigsaw_if_unnamed),
]
Targets = Annotated[dict[str, Target], BeforeValidator(_named)]
"""By the benchmark's name."""
