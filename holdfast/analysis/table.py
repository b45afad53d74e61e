"""One tidy table of everything that finished studies recorded. Texts stay on disk until they are asked for.

A study's questions have one order: that of its base's records. All arms answered the same ones, so the answers of
several trainings are rows of one array (replicates, questions).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from holdfast.analysis.settings import Place, places
from holdfast.analysis.trainings import read_alarms, read_trainings
from holdfast.config.jobs import Evaluated, FinishedStudy
from holdfast.errors import UserError

BASE = "base"
"""Stands where an arm's name would."""
TEXTS = ("prompt", "completion", "parsed", "answer", "grader")
IDENTITY = ("split", "id", "image_id", "answer", "grader")
MEASURED = ("parsed", "correct", "score", "logprob", "tokens")
THREADS = 4
PLACE = ("study", "setting", "draw", "arm", "replicate", "stage", "stage_step", "step")
"""Columns that all tables share. `study` is a name; `setting` is "" or "factor=level, …" of the factors that are
compared; `draw` is the same of the factors that only reseed (data, base); `arm` is "base" for the base, with replicate
0 and step 0; `replicate` counts from 1; `stage_step` counts in the stage, `step` over all stages of the arm."""


@dataclass(frozen=True)
class Tables:
    """What finished studies recorded."""

    records: pd.DataFrame
    """One row a question that was asked: `PLACE`, and benchmark, role (target | prior), split (test | validation),
    question (its id), image, parsed_ok, correct (bool), score (0 to 1), logprob (nats per token of the reference),
    tokens (of the completion), file (row of `files`). Strings are categorical."""
    files: pd.DataFrame
    """One row a file of records: `PLACE`, and benchmark, role, path, start, middle, stop: its rows in `records`, test
    questions before `middle`."""
    drift: pd.DataFrame
    """`PLACE`, and question, kl (nats per token, of one prompt)."""
    pass_at: pd.DataFrame
    """`PLACE`, and benchmark, question, right (of the most samples that any k asks for)."""
    trainings: pd.DataFrame
    """One row a training: study, setting, draw, arm, replicate, stage, run_id, path, seconds, steps, offset (steps of
    the stages before), method, source, tokens (NaN where the trainer did not count them), alarms (how many)."""
    alarms: pd.DataFrame
    """study, setting, draw, arm, replicate, stage, step (of the stage), alarm, sentence."""
    flips: pd.DataFrame
    """The noise floor, one row a study whose base was evaluated twice: study, setting, draw, questions, answers and
    verdicts (shares that differ between two batch sizes)."""
    places: tuple[Place, ...]
    """The studies in order, each with its setting and draw."""


class QuestionSet(NamedTuple):
    """A study's questions of a benchmark, test questions first."""

    ids: pa.Array
    splits: pa.Array
    images: pa.Array
    grader: str
    digest: int
    """Of ids, images and answers: equal for the same questions. Another seed draws others under the same ids."""


def load(studies: Sequence[FinishedStudy]) -> Tables:
    """Read the records of finished studies.

    Raises:
        UserError: two studies cannot be compared, or an evaluation lacks questions that its base was asked.
    """
    raise NotImplementedError


def texts(tables: Tables, rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of `tables.records` with what was said: prompt, completion, parsed (None where unreadable), answer, grader."""
    raise NotImplementedError
