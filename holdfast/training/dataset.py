"""What a stage learns from, as TRL takes it, in an order that depends on nothing but the seed.

The order is laid out in advance, one shuffled pass over the questions after another, as long as the training is: TRL
walks it from front to back, so a resumed training finds its place by counting, and every method sees the same prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import TrainerState

from holdfast.data.chat import begun, messages, pictures, rest
from holdfast.data.shards import Question
from holdfast.data.training_set import TrainingRow


def order(rows: int, length: int, seed: int | list[int]) -> list[int]:
    """`length` row numbers: seeded permutations, one after another."""
    rng = np.random.default_rng(seed)
    passes = [rng.permutation(rows) for _ in range(-(-length // rows))]
    return np.concatenate(passes)[:length].tolist()


def with_old(rows: tuple[int, int], length: int, share: float, seed: int) -> list[int]:
    """`length` row numbers of own and, after them, old rows: of the first n, ⌊n · share⌋ are old.

    Without old rows, or of a share of 0, the order is that of the own rows alone.
    """
    own, old = rows
    turns = np.diff(np.floor(np.arange(length + 1) * share)) > 0
    if not old or not turns.any():
        return order(own, length, seed)
    places = np.empty(length, int)
    places[~turns] = order(own, int((~turns).sum()), seed)
    places[turns] = own + np.array(order(old, int(turns.sum()), [seed, 1]))
    return places.tolist()


def dataset(rows: list[TrainingRow], places: list[int], shown: Callable[[TrainingRow], dict[str, Any]]) -> Dataset:
    """Rows in order, as columns that are made when they are asked for and not kept."""

    def look_up(batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        wanted = {place: shown(rows[place]) for place in batch["row"]}
        found = [wanted[place] for place in batch["row"]]
        return {name: [row[name] for row in found] for name in found[0]}

    return Dataset.from_dict({"row": places}).with_transform(look_up)


def conversation(processor: Any, row: TrainingRow) -> dict[str, Any]:
    """A question with the columns that TRL's GRPOTrainer and the rewards read."""
    question = row.question
    return {
        "id": question.id,
        "prompt": messages(processor, question),
        "images": pictures(question),
        "question": question.prompt,
        "answer": question.answer,
        "accepted": question.accepted,
        "grader": question.grader,
        "begun": begun(question),
        # A replayed question is answered well in the form that its model was taught, asked for or not.
        "thinking": "<think>" in question.prompt or (row.old and "<think>" in question.reference),
    }


def reward_columns(written: Sequence[tuple[Question, str]], processor: Any, step: int) -> dict[str, Any]:
    """What TRL's GRPOTrainer hands to a reward function, made without a trainer.

    Keyword arguments for completions of questions, the ones of a group one after another, after `step` steps.
    """
    asked = {question.id: conversation(processor, TrainingRow(question)) for question, _ in written}
    rows = [asked[question.id] for question, _ in written]
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in rows[0] if name != "prompt"}
    tokenize = processor.tokenizer
    return columns | {
        "prompts": [row["prompt"] for row in rows],
        "completions": [[{"role": "assistant", "content": text}] for _, text in written],
        "completion_ids": [tokenize(rest(*one), add_special_tokens=False)["input_ids"] for one in written],
        "trainer_state": TrainerState(global_step=step),
        "log_metric": lambda name, value: None,
        "log_extra": lambda column, values: None,
    }
