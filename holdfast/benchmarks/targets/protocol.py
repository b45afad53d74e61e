"""What a target is: a module that draws a question, or reads one off a data set's row, and says what guessing scores.

A question's grader decides reward and score alike. The jigsaw, which is cut from any images, has its own way of asking.
"""

from __future__ import annotations

from typing import Any, Protocol

from holdfast.benchmarks.question import Annotation, Draw, TargetQuestion
from holdfast.config.targets import Arithmetic, Jigsaw, Target


class DrawnTarget(Protocol):
    """A target's module."""

    def ask(self, target: Any, draw: Draw) -> TargetQuestion:
        """Draw a question, with its image unless it asks in text alone."""

    def chance(self, target: Any) -> float:
        """Expected score of a guess among the answers that a drawn question can have."""


class PublicTarget(DrawnTarget, Protocol):
    """A target that public data sets serve as well."""

    COLUMNS: tuple[str, ...]
    """The fields of config.Columns that it cannot do without."""

    def read(self, row: Annotation, target: Any, draw: Draw) -> TargetQuestion | None:
        """A question about a row of a public data set; None where the row has none to offer."""


def described(target: Target) -> str:
    """A target in a few words."""
    few = f", {target.per_class} of each class" if target.per_class else ""
    if isinstance(target, Jigsaw):
        return f"{target.grid[0]}×{target.grid[1]} jigsaw{few}"
    public = getattr(target, "public", None)
    drawn = "drawn problems" if isinstance(target, Arithmetic) else "drawn images"
    return f"{target.benchmark} from {public.name if public else getattr(target, 'path', None) or drawn}{few}"
