"""What stages left: a stage's result.json, and finished runs and files of records as a comparison reads them.

Imports no torch.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict

from holdfast.config.base import Config
from holdfast.config.refs import DataRef, FileRef
from holdfast.config.study import Study


class Checkpoint(Config):
    """A kept checkpoint of a stage."""

    step: int
    path: str
    """Relative to the stage's directory."""
    digest: str


class Result(Config):
    """result.json: written last, so its presence means that the stage is complete.

    A number that is not finite stands there as "NaN", "Infinity" or "-Infinity".
    """

    model_config = ConfigDict(ser_json_inf_nan="strings")

    metrics: dict[str, float] = {}
    """The last value of each metric."""
    checkpoints: tuple[Checkpoint, ...] = ()
    files: dict[str, str] = {}
    """sha256 of every file that is kept, by relative path (checkpoint files included)."""
    stamps: dict[str, tuple[int, int]] = {}
    """Size and time of change of each of them, as `refs.stamp_of` has them: what has both still is not hashed again."""
    seconds: float = 0.0
    peak_memory_mb: float = 0.0
    notes: dict[str, Any] = {}
    """Facts worth keeping that are no metrics, for example how many images were skipped."""


class RunRecord(Config):
    """A finished stage as the report reads it."""

    kind: Literal["data", "base", "evaluate", "sample", "select", "train", "influence", "ledger", "predictors"]
    arm: str | None = None
    """The arm that a `train` run trains, or that another run is for."""
    replicate: int = 0
    """From 1; 0 for a run that belongs to no arm."""
    stage: int = 0
    path: str
    """Directory with result.json, metrics.jsonl and files."""
    digest: str
    seconds: float
    """Wall time inside the stage's process, when it ran."""
    run_id: str = ""


class Evaluated(Config):
    """A file that an evaluation left about one checkpoint."""

    kind: Literal["records", "drift", "pass_at"]
    arm: str | None = None
    """None for the base."""
    replicate: int = 0
    stage: int = 0
    step: int = 0
    benchmark: str
    file: FileRef


class FinishedStudy(Config):
    """What of a study is compared: finished runs, and the files of records that its evaluations left."""

    levels: dict[str, str] = {}
    """The level of each factor, where the study belongs to a sweep."""
    study: Study
    data: DataRef
    runs: tuple[RunRecord, ...]
    evaluated: tuple[Evaluated, ...] = ()
    certificate: str = ""
    """One digest of all that decides the study's numbers."""
