"""Benchmarks of prior knowledge: what must survive."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveInt, model_validator

from holdfast.config.base import Config, HubOrPath, LocalPath

PRIOR_NAMES = ("color", "shape", "count", "presence", "comparison", "pieces", "grounding", "digits")


class Asking(Config):
    """How a model is asked. What is left out is as the benchmark's authors have it, or the model's own default."""

    suffix: str | None = None
    """What the question ends with; "" for nothing."""
    system: str | None = None
    """A system prompt."""
    prefill: str | None = None
    """How the answer begins; the model goes on from there, and what it adds is graded."""
    thinking: bool | None = None
    """true: ask for reasoning in <think> tags first. Reasoning in such tags is never graded, asked for or not."""


class Prior(Config):
    """One of the bundled benchmarks of prior knowledge, asked about scenes of the world."""

    benchmark: Literal["color", "shape", "count", "presence", "comparison", "pieces", "grounding", "digits"]
    questions: PositiveInt = 100
    """Questions in the test set."""
    validation: PositiveInt = 64
    """Questions in the validation set, by which checkpoints are chosen, alarms go off and influence is measured."""
    train: PositiveInt | None = None
    """Questions to learn from, for stages that replay or protect what is known; by default none."""
    dialect: Literal["plain"] | None = None
    """`plain`: the question says which answers there are, for a model that was not taught them, and a sentence that
    names one of them is an answer; pictures are enlarged to 448 pixels a side. By default as the bundled base was
    taught."""

    @property
    def name(self) -> str:
        return self.benchmark


class Imported(Asking):
    """Your own prior benchmark: rows of image, question and answer in a JSONL or Parquet file."""

    benchmark: Literal["imported"] = "imported"
    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    """Its name in metrics and reports."""
    path: LocalPath
    """JSONL or Parquet; an image is a path relative to the file, bytes, base64, a data URI, pixels, or a list of these.
    """
    validation_path: LocalPath | None = None
    """Validation questions in a file of the same kind. Without it, the rows of a tenth of the images, at least of two
    and with at most 64 questions, are set apart for validation and not tested on."""
    train_path: LocalPath | None = None
    """Questions to learn from in a file of the same kind, for stages that replay or protect what is known."""
    grader: str = "exact"
    """`exact`, `number`, `choice`, `box`, `boxed`, `contains`, `detection` or `vqa` (docs/graders.md); a `grader`
    column overrides it row by row."""


class PublicPrior(Asking):
    """A public benchmark, with its authors' prompt and metric (docs/benchmarks.md)."""

    benchmark: Literal[
        "refcoco",
        "refcoco-plus",
        "refcocog",
        "docvqa",
        "mme",
        "mmstar",
        "mmmu",
        "pope",
        "gsm8k",
        "math500",
        "mmlu-pro",
        "arc",
        "ifeval",
        "gpqa",
    ]
    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    """Its name in metrics and reports; by default the benchmark's."""
    data: HubOrPath | None = None
    """Another data set of the same columns: an id on the Hub, or a local directory."""
    revision: str | None = None
    """Commit of the data set. It may be left out for a local directory, and where docs/benchmarks.md has one."""
    config: str | None = None
    """Which of the data set's configurations; by default the authors'."""
    split: str | None = None
    """By default the one that results are published on."""
    questions: PositiveInt | None = 200
    """Test questions at most, drawn by the seed in whole units: pairs, images, rows. null for all."""
    validation: PositiveInt = 64
    """Validation questions at most, of other images."""
    pixels: PositiveInt = 1_605_632
    """Larger images are scaled down to so many pixels; the default is lmms-eval's for Qwen2.5-VL."""
    boxes: Literal["unit", "qwen2-vl", "qwen2.5-vl", "qwen3-vl", "internvl"] | None = None
    """How your model writes boxes. RefCOCO needs it."""
    shots: int | None = Field(default=None, ge=0)
    """Solved examples before each question, by default as many as the authors'; at most those that the first 200 rows
    of the split they come from have (of MMLU-Pro's five a subject)."""

    @model_validator(mode="before")
    @classmethod
    def _name_is_the_benchmarks(cls, value: Any) -> Any:
        return {"name": value["benchmark"], **value} if isinstance(value, dict) and "benchmark" in value else value


def _named(value: Any) -> Any:
    if isinstance(value, str):
        return {"benchmark": value}
    if isinstance(value, dict) and "benchmark" not in value and "path" in value:
        return {"benchmark": "imported", **value}
    return value


PriorBenchmark = Annotated[
    Annotated[Prior | Imported | PublicPrior, Field(discriminator="benchmark")],
    BeforeValidator(_named),
]
