"""A question as a benchmark asks it, before it is given an identity and written to a shard."""

from __future__ import annotations

from typing import NamedTuple

from PIL import Image


def form(thinking: bool) -> str:
    """How a target asks for its answer."""
    if thinking:
        return "Think in <think> </think>, then answer in <answer> </answer>."
    return "Answer in <answer> </answer>."


class Asked(NamedTuple):
    """`think` is how the bundled base is taught to reason before it answers."""

    image: Image.Image
    prompt: str
    answer: str
    think: str

    @property
    def reference(self) -> str:
        """The completion that is right in content and in form."""
        return f"<think> {self.think} </think> <answer> {self.answer} </answer>"
