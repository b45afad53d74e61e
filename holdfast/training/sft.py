"""Supervised fine-tuning: TRL's SFTTrainer on prompts and completions, of which only the completions are learned.

Batches are made by the functions that evaluation and influence use: what trains is what is measured. TRL's own collator
supervises all that a chat template writes after the text: a line break that nobody ever samples, or no end at all
where the template writes none.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from trl import SFTTrainer

from holdfast.data.chat import reads_images, rest
from holdfast.data.training_set import TrainingRow
from holdfast.models.encode import TeacherForced, completion_ids, encode, teacher_forced
from holdfast.training.arguments import TrainerConfig
from holdfast.training.dataset import dataset

IGNORED = -100
"""A label that the loss leaves out."""


def sft_trainer(
    model: Any, processor: Any, config: TrainerConfig, rows: list[TrainingRow], order: list[int]
) -> SFTTrainer:
    """A trainer that takes rows in the given order; its loss is the mean over the tokens of completions."""
    return SFTTrainer(
        model=model,
        args=config,
        train_dataset=dataset(rows, order, lambda row: {"row": row}),
        data_collator=Collator(processor),
        processing_class=processor if reads_images(processor) else processor.tokenizer,
    )


class Collator:
    """Makes a batch of rows: prompts, then completions up to their end tokens, of which alone the labels are."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, examples: list[dict[str, TrainingRow]]) -> dict[str, Tensor]:
        rows = [example["row"] for example in examples]
        tokenizer = self.processor.tokenizer
        completions = [completion_ids(tokenizer, rest(row.question, row.completion or ""), row.ended) for row in rows]
        prompts = encode(self.processor, [row.question for row in rows])
        return labelled(teacher_forced(prompts, completions, tokenizer.pad_token_id, torch.device("cpu")))


def labelled(batch: TeacherForced) -> dict[str, Tensor]:
    """What the model takes, with the completions' tokens as labels."""
    # Towers crash on no images at all.
    inputs = {name: value for name, value in batch.inputs.items() if len(value)}
    labels = torch.full_like(inputs["input_ids"], IGNORED)
    labels[:, -batch.targets.shape[1] :] = batch.targets.masked_fill(~batch.mask, IGNORED)
    return {**inputs, "labels": labels}
