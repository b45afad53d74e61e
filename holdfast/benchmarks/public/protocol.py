"""What a public benchmark is: a module that says where its rows are, poses one as its authors do, and grades an answer.

A `Doc` is a row without its images, in the form in which lmms-eval or lm-evaluation-harness hands it to its scorer:
what is exported is what they score, and what they wrote can be graded here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from holdfast.benchmarks.grading.answer import Verdict

Doc = dict[str, Any]


class Source(NamedTuple):
    """A data set and what is read of it."""

    id: str
    """On the Hugging Face Hub."""
    split: str
    columns: tuple[str, ...]
    """All that are needed, beside the images'."""
    config: str | None = None
    revision: str | None = None
    """A commit that public sources name; where it is None, the user has to."""
    images: tuple[str, ...] = ()
    """Columns of images; none for a benchmark in text."""
    unit: tuple[str, ...] = ()
    """Columns by which rows belong together (an image, a pair); each row is one where there are none."""
    harness: str = ""
    """The task of lmms-eval or lm-evaluation-harness that scores the same completions alike."""
    shots: int = 0
    examples: str = ""
    """The split that solved examples come from."""


class Manner(NamedTuple):
    """What of a question the user may set."""

    suffix: str | None = None
    boxes: str | None = None
    seed: int = 0


class Picture(NamedTuple):
    """Width and height of an image in pixels, as the data set has it and as the model is shown it."""

    given: tuple[int, int]
    shown: tuple[int, int]


class Posed(NamedTuple):
    """A row as a question."""

    prompt: str
    answer: str
    reference: str
    """A right completion, as the authors would have it; empty where no text is one."""
    doc: Doc
    prefill: str = ""
    images: tuple[str, ...] | None = None
    """Columns of the images that are shown; by default all of the source's."""


class Marked(Protocol):
    """What metrics read of a record."""

    @property
    def parsed(self) -> str | None: ...
    @property
    def answer(self) -> str: ...
    @property
    def correct(self) -> bool: ...
    @property
    def score(self) -> float: ...
    @property
    def strict(self) -> bool | None: ...
    @property
    def authors(self) -> float | None: ...
    @property
    def group(self) -> str | None: ...


class PublicBenchmark(Protocol):
    """A benchmark's module.

    It may have more: `example`, `opening` and `ALIKE` for solved examples; `unit`, which shortens what rows belong
    together by; `require`, which refuses before any work where a library is missing; `exported`, `doc_of` and
    `GRADED_BY` where a harness's files differ from the data set.
    """

    SOURCES: dict[str, Source]
    """By the name that a study's file has; most modules have one."""

    def pose(self, row: Doc, picture: Picture | None, manner: Manner) -> list[Posed]:
        """The questions of a row, whose first image has these sizes."""

    def grade(self, completion: str, doc: Doc) -> Verdict:
        """What a completion is worth."""

    def metrics(self, rows: Sequence[Marked]) -> dict[str, float]:
        """The authors' metrics, by names that begin with `authors_`, and what else tells of format and bias."""


def mean(values: Sequence[float]) -> float:
    """Of at least one value."""
    return sum(values) / len(values)
