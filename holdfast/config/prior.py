"""Benchmarks of prior knowledge: what must survive."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveInt

from holdfast.config.base import Config, LocalPath

PRIOR_NAMES = ("color", "shape", "count", "presence", "comparison", "pieces", "grounding", "digits")


class Prior(Config):
    """One of the bundled benchmarks of prior knowledge, asked about scenes of the world."""

    benchmark: Literal["color", "shape", "count", "presence", "comparison", "pieces", "grounding", "digits"]
    questions: PositiveInt = 100
    """Questions in the test set."""
    validation: PositiveInt = 64
    """Questions in the validation set, by which checkpoints are chosen, alarms go off and influence is measured."""

    @property
    def name(self) -> str:
        return self.benchmark


class Imported(Config):
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
    grader: str = "exact"
    """`exact`, `number`, `choice`, `box`, `contains`, `detection` or `vqa` (docs/graders.md); a `grader` column
    overrides it row by row."""


def _named(value: Any) -> Any:
    if isinstance(value, str):
        return {"benchmark": value}
    if isinstance(value, dict) and "benchmark" not in value and "path" in value:
        return {"benchmark": "imported", **value}
    return value


PriorBenchmark = Annotated[
    Annotated[Prior | Imported, Field(discriminator="benchmark")],
    BeforeValidator(_named),
]
