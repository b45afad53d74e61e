"""What the steps of a training learned from, as it was taken down, and as tensors again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from holdfast.data.chat import whole
from holdfast.data.shards import Question
from holdfast.influence.replay.attribution import Learned
from holdfast.influence.replay.steps import Taught
from holdfast.influence.samples import Sample, SampleEncoder
from holdfast.models.encode import encode


class StepSamples:
    """The samples of every step as tensors, in batches of an analysis; a prompt is encoded once."""

    def __init__(
        self,
        taught: Sequence[Sequence[Taught]],
        questions: Sequence[Question],
        encoder: SampleEncoder,
        where: torch.device,
        temperature: float = 1.0,
    ) -> None:
        self.taught, self.encoder, self.where, self.temperature = taught, encoder, where, temperature
        self.questions = {question.id: question for question in questions}
        self.prompts: dict[str, Any] = {}

    def completion(self, taught: Taught) -> str:
        """A sample's, as a grader reads it."""
        text = self.encoder.processor.tokenizer.decode(taught.completion, skip_special_tokens=True)
        return whole(self.questions[taught.question], text)

    def first(self) -> list[Sample]:
        """Of the first step that has any with tokens, these; of a rollout that was cut off TRL may mask all."""
        for step in self.taught:
            if found := [self._sample(taught) for taught in step if taught.completion]:
                return found
        return []

    def learned(self, step: int) -> Iterator[Learned]:
        """The samples of a step; those whose loss has no slope, as rollouts without an advantage, in batches apart, and
        so those without a token."""
        taught = self.taught[step - 1]
        kinds = [(bool(one.completion), bool(one.weights.any())) for one in taught]
        for kind in ((True, True), (True, False), (False, False)):
            yield from self._batches([place for place, own in enumerate(kinds) if own == kind], taught)

    def _batches(self, places: Sequence[int], taught: Sequence[Taught]) -> Iterator[Learned]:
        done = 0
        samples = [self._sample(taught[place]) for place in places]
        batches = self.encoder.batches(samples, self.where)
        for part, batch in zip(self.encoder.parts(samples), batches, strict=True):
            own = places[done : done + len(part)]
            given = [taught[place] for place in own]
            done += len(part)
            width = batch.targets.shape[1]
            penalties = [one.penalty for one in given if one.penalty is not None]
            # Without tokens no pass is possible, and none is needed.
            penalty = _padded(penalties, width) if penalties and width else None
            yield Learned(batch, _padded([one.weights for one in given], width), penalty, self.temperature, own)

    def _sample(self, taught: Taught) -> Sample:
        if taught.question not in self.prompts:
            [self.prompts[taught.question]] = encode(self.encoder.processor, [self.questions[taught.question]])
        prompt = self.prompts[taught.question]
        return Sample(str(taught.row), taught.question, "", prompt, taught.completion, taught.advantage)


def _padded(rows: Sequence[torch.Tensor], width: int) -> torch.Tensor:
    return torch.stack([torch.nn.functional.pad(row, (0, width - len(row))) for row in rows])
