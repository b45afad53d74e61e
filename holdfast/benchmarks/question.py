"""Questions as prior benchmarks and targets ask them, before they get an identity and are written to a shard."""

from __future__ import annotations

from typing import NamedTuple

from PIL import Image

from holdfast.config.targets import Target
from holdfast.data.shards import Question, png
from holdfast.data.world import generator

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2."""

THINK = "\nThink in <think> </think> first."
"""The request of a prior benchmark whose config asks for reasoning."""

BOX = r"\boxed{"
"""How an answer in LaTeX's box begins."""


def form(thinking: bool) -> str:
    """How a target asks for its answer."""
    if thinking:
        return "Think in <think> </think>, then answer in <answer> </answer>."
    return "Answer in <answer> </answer>."


def bare(answer: str, prefill: str, grader: str = "") -> str:
    """The right answer alone in its tags, or its box; reasoning that the prefill begins is ended first."""
    given = f"{BOX}{answer}}}" if grader == "boxed" else f"<answer> {answer} </answer>"
    return f"{'<think> </think> ' if '<think>' in prefill else ''}{given}"


class PriorQuestion(NamedTuple):
    """A question of a prior benchmark; `think` is how the bundled base is taught to reason before it answers."""

    image: Image.Image
    prompt: str
    answer: str
    think: str

    @property
    def reference(self) -> str:
        """The completion that is right in content and in form."""
        return f"<think> {self.think} </think> <answer> {self.answer} </answer>"


class Draw(NamedTuple):
    """Which question of a split is to be drawn; the same one always comes out the same."""

    seed: int
    split: str
    number: int

    def turn(self, name: str, options: int, number: int | None = None) -> int:
        """One of so many options. Every block of `options` questions has each of them once, in random order."""
        block, position = divmod(self.number if number is None else number, options)
        return int(generator("turn", name, self.seed, self.split, options, block).permutation(options)[position])


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


class TargetQuestion(NamedTuple):
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

    def with_completions(self, image_id: str, target: Target) -> Question:
        """As it stands in a shard, with its completions: the bare answer, and the answer after a foreign reasoning."""
        prefill = target.prefill or ""
        return Question(
            id=f"{image_id}#0",
            image_id=image_id,
            images=tuple(png(image) for image in self.images),
            prompt=f"{self.prompt} {form(target.thinking)}",
            answer=self.answer,
            reference=bare(self.answer, prefill),
            teacher=f"<think> {self.reasoning} </think> <answer> {self.answer} </answer>",
            grader=self.grader,
            benchmark=target.benchmark,
            accepted=self.accepted,
            system=target.system or "",
            prefill=prefill,
        )
