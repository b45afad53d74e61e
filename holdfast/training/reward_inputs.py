"""What TRL's GRPOTrainer hands to a reward function, made without a trainer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import TrainerState

from holdfast.data.shards import Question
from holdfast.data.training_set import TrainingRow
from holdfast.training.dataset import conversation


def columns_of(written: Sequence[tuple[Question, str]], processor: Any, step: int) -> dict[str, Any]:
    """Keyword arguments for completions of questions, the ones of a group one after another, after `step` steps."""
    asked = {question.id: conversation(TrainingRow(question)) for question, _ in written}
    rows = [asked[question.id] for question, _ in written]
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in rows[0] if name != "prompt"}
    tokenize = processor.tokenizer
    return columns | {
        "prompts": [row["prompt"] for row in rows],
        "completions": [[{"role": "assistant", "content": text}] for _, text in written],
        "completion_ids": [tokenize(text, add_special_tokens=False)["input_ids"] for _, text in written],
        "trainer_state": TrainerState(global_step=step),
        "log_metric": lambda name, value: None,
        "log_extra": lambda column, values: None,
    }
