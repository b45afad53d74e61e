"""What a target is: a module that draws a question, or reads one off an annotated image, and says what guessing scores.

A question's grader decides reward and score alike. The jigsaw, which is cut from any images, has its own way of asking.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from PIL import Image

from holdfast.benchmarks.asked import form
from holdfast.config import Jigsaw, Target
from holdfast.data.shards import Question, png
from holdfast.data.world import generator

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2."""


class Draw(NamedTuple):
    """Which question of a split is to be drawn; the same one always comes out the same."""

    seed: int
    split: str
    number: int

    def turn(self, name: str, options: int, number: int | None = None) -> int:
        """One of so many options. Every block of `options` questions has each of them once, in random order."""
        block, place = divmod(self.number if number is None else number, options)
        return int(generator("turn", name, self.seed, self.split, options, block).permutation(options)[place])


class Annotation(NamedTuple):
    """A row of a public data set; what its columns do not have is empty."""

    images: tuple[Image.Image, ...]
    label: str = ""
    labels: tuple[str, ...] = ()
    """The names of all classes, where the data set has them."""
    question: str = ""
    answer: str = ""
    accepted: tuple[str, ...] = ()
    """All answers of a row that lists several; `answer` is the one that most annotators gave."""
    options: tuple[str, ...] = ()
    caption: str = ""
    boxes: tuple[Box, ...] = ()
    """In shares of the image's sides."""
    categories: tuple[str, ...] = ()


class Posed(NamedTuple):
    """A question as a target asks it, before it is written to a shard."""

    images: tuple[Image.Image, ...]
    prompt: str
    """Without the request for a form."""
    answer: str
    reasoning: str
    """What a larger model would say before the answer."""
    group: str
    """What `per_class` counts."""
    grader: str
    facts: tuple[str, ...] = ()
    """What can be seen, in the bundled base's own words; nothing of it answers the question alone."""
    accepted: tuple[str, ...] = ()
    """All accepted answers, where there are several."""

    def question(self, image_id: str, target: Target) -> Question:
        """With its completions: the bare answer, and the answer after a foreign reasoning."""
        answer = f"<answer> {self.answer} </answer>"
        return Question(
            id=f"{image_id}#0",
            image_id=image_id,
            images=tuple(png(image) for image in self.images),
            prompt=f"{self.prompt} {form(target.thinking)}",
            answer=self.answer,
            reference=answer,
            teacher=f"<think> {self.reasoning} </think> {answer}",
            grader=self.grader,
            benchmark=target.benchmark,
            accepted=self.accepted,
        )


class Asking(Protocol):
    """A target's module."""

    SIZE: tuple[int, int]
    """Width and height of its drawn images in pixels, multiples of 32."""

    def ask(self, target: Any, draw: Draw) -> Posed:
        """Draw a question with its image."""

    def chance(self, target: Any) -> float:
        """Expected score of a guess among the answers that a drawn question can have."""


class Reading(Asking, Protocol):
    """A target that public data sets serve as well."""

    COLUMNS: tuple[str, ...]
    """The fields of config.Columns that it cannot do without."""

    def read(self, row: Annotation, target: Any, draw: Draw) -> Posed | None:
        """A question about a row of a public data set; None where the row has none to offer."""


def described(target: Target) -> str:
    """A target in a few words."""
    few = f", {target.per_class} of each class" if target.per_class else ""
    if isinstance(target, Jigsaw):
        return f"{target.grid[0]}×{target.grid[1]} jigsaw{few}"
    public = getattr(target, "public", None)
    return f"{target.benchmark} from {public.name if public else getattr(target, 'path', None) or 'drawn images'}{few}"
