"""Batches of unlike samples, and slow, plain references for what is measured on them."""

from __future__ import annotations

import io
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from holdfast.data.shards import Question
from holdfast.data.world import world_scene
from holdfast.influence.engine.engine import block_of
from holdfast.influence.engine.gradients import Gradient, Objective, batch_gradient, log_likelihood, selection
from holdfast.models.encode import Encoded, TeacherForced, encode, teacher_forced

CPU = torch.device("cpu")
PAD = 0
LENGTHS = [(3, 5), (9, 1), (1, 4)]
"""Of prompts and completions, for `texts`."""


class Sample(NamedTuple):
    """A prompt and the tokens that it is followed by."""

    prompt: Encoded
    completion: list[int]


def picture(index: int, width: int, height: int) -> bytes:
    """A scene, stretched, as a PNG file."""
    buffer = io.BytesIO()
    world_scene(0, "train", index).image.resize((width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def questions_with_images(processor: Any) -> list[Sample]:
    """One small image, two images of other sizes, none, and a wide one."""
    asked = [
        ("color?", [picture(0, 64, 64)], "<answer> red </answer>"),
        ("which of both?", [picture(1, 32, 96), picture(2, 64, 32)], "2"),
        ("what is 2 + 2?", [], "<think> 2 + 2 </think> <answer> 4 </answer>"),
        ("count", [picture(3, 128, 64)], "three"),
    ]
    questions = [Question(str(i), "", tuple(images), text, "", "", "", "") for i, (text, images, _) in enumerate(asked)]
    completions = [processor.tokenizer(text, add_special_tokens=False)["input_ids"] for _, _, text in asked]
    return [Sample(*pair) for pair in zip(encode(processor, questions), completions, strict=True)]


def texts(vocabulary: int, lengths: list[tuple[int, int]], seed: int = 0) -> list[Sample]:
    """Random prompts and completions of the given lengths, without images; tokens recur."""
    rng = torch.Generator().manual_seed(seed)

    def draw(length: int) -> Tensor:
        return torch.randint(1, vocabulary, (length,), generator=rng)

    return [
        Sample({"input_ids": draw(asked), "attention_mask": torch.ones(asked, dtype=torch.long)}, draw(said).tolist())
        for asked, said in lengths
    ]


def batch_of(samples: list[Sample]) -> TeacherForced:
    """All in one batch."""
    return teacher_forced([sample.prompt for sample in samples], [sample.completion for sample in samples], PAD, CPU)


def one_by_one(model: Any, samples: list[Sample]) -> list[Gradient]:
    """Every sample's gradient from a batch of its own."""
    return [batch_gradient(model, batch_of([sample])) for sample in samples]


def one_by_one_in_batch(model: Any, batch: TeacherForced) -> list[Gradient]:
    """Every sample's gradient from the whole batch; text models number padding too, in angles of single precision."""

    def only(row: int) -> Objective:
        return lambda logits, given: log_likelihood(logits, given)[row]

    return [batch_gradient(model, batch, only(row)) for row in range(len(batch.targets))]


def random_targets(model: Any, count: int, seed: int = 0) -> list[Gradient]:
    """Targets that favor no direction."""
    rng = torch.Generator().manual_seed(seed)
    shapes = selection(model).items()
    return [
        {name: torch.randn(value.shape, generator=rng, dtype=value.dtype) for name, value in shapes}
        for _ in range(count)
    ]


def inner(left: Gradient, right: Gradient, blocks: list[str]) -> Tensor:
    """⟨left, right⟩ within each block (blocks,), in float64."""
    sums = torch.zeros(len(blocks), dtype=torch.float64)
    for name, value in left.items():
        sums[blocks.index(block_of(name))] += (value.double() * right[name].double()).sum()
    return sums


def close(found: Tensor, wanted: Tensor, tolerance: float = 1e-10) -> bool:
    """Equal relative to the largest."""
    return bool((found - wanted).abs().max() <= tolerance * wanted.abs().max())


class Recurrent(nn.Module):
    """Uses a matrix through two modules, calls modules several times, and throws some of their output away."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(40, 8)
        self.again = nn.Linear(8, 8)
        self.twin = nn.Linear(8, 8, bias=False)
        self.twin.weight = self.again.weight
        self.unused = nn.Linear(8, 8)
        self.lm_head = nn.Linear(8, 40, bias=False)
        self.lm_head.weight = self.embed_tokens.weight

    def forward(self, input_ids: Tensor, logits_to_keep: int, **_: Any) -> Any:
        hidden = self.embed_tokens(input_ids) + self.embed_tokens(input_ids.flip(1))
        for _ in range(3):
            hidden = self.again(hidden).tanh()
        self.unused(hidden), self.again(hidden), self.embed_tokens(input_ids)
        hidden = self.twin(hidden.cumsum(1)).tanh()
        logits = self.lm_head(hidden)[:, -logits_to_keep:]
        return type("Output", (), {"logits": logits + self.lm_head(hidden.sin())[:, -logits_to_keep:]})
