"""Where a completion ends: at the token at which generation stops, whatever the chat template writes after it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from holdfast.config.refs import ModelRef
from holdfast.data.shards import Question
from holdfast.data.training_set import TrainingRow
from holdfast.models.encode import completion_ids
from holdfast.models.end_of_turn import end_turns
from holdfast.models.load import load_processor, save_checkpoint
from holdfast.models.tiny.build import build_model
from holdfast.training.sft import IGNORED, Collator

TURN = "{% for m in messages %}{{ m.role }}: {% for part in m.content %}{{ part.text }}{% endfor %}AFTER{% endfor %}"


def speaking(processor: Any, after: str, *more: str) -> Any:
    """A processor whose template writes `after` behind every text, with further special tokens."""
    made = copy.deepcopy(processor)
    made.tokenizer.add_special_tokens({"additional_special_tokens": list(more)}, replace_extra_special_tokens=False)
    made.chat_template = TURN.replace("AFTER", after)
    return made


@pytest.mark.parametrize(
    ("after", "stops", "end"),
    [
        ("<|im_end|>\n", ["<|im_end|>"], "<|im_end|>"),
        ("<|im_end|>\n", [], "<|im_end|>"),
        ("<end_of_utterance>\n", ["<end_of_utterance>"], "<end_of_utterance>"),
        ("<turn|>", ["<|endoftext|>", "<turn|>"], "<turn|>"),
        # Generation would not stop there, so nothing would.
        ("<turn|>\n", ["<|endoftext|>"], "<|im_end|>"),
        (" ", ["<|endoftext|>"], "<|im_end|>"),
        ("", [], "<|im_end|>"),
    ],
)
def test_a_completion_ends_with_the_first_token_of_the_template_at_which_generation_stops(
    processor: Any, after: str, stops: list[str], end: str
) -> None:
    made = speaking(processor, after, "<end_of_utterance>", "<turn|>")
    end_turns(made, made.tokenizer.convert_tokens_to_ids(stops))
    text = made.tokenizer("3 1 2", add_special_tokens=False)["input_ids"]
    assert completion_ids(made.tokenizer, "3 1 2") == [*text, made.tokenizer.convert_tokens_to_ids(end)]
    assert completion_ids(made.tokenizer, "3 1 2", ended=False) == text


def test_a_processor_without_a_template_or_with_one_that_refuses_ends_with_its_own_token(processor: Any) -> None:
    for template in (None, "{{ raise_exception('system first') }}"):
        made = copy.deepcopy(processor)
        made.chat_template = template
        end_turns(made, [0])
        assert made.tokenizer.eos_token == "<|im_end|>"


def test_a_checkpoints_generation_settings_say_where_it_stops(processor: Any, tmp_path: Path) -> None:
    made = speaking(processor, "<turn|>\n", "<turn|>")
    torch.manual_seed(0)
    model = build_model(processor, hidden=64, layers=1)
    end = made.tokenizer.convert_tokens_to_ids("<turn|>")
    model.generation_config.eos_token_id = [made.tokenizer.eos_token_id, end]
    save_checkpoint(model, made, tmp_path / "model")
    assert load_processor(ModelRef(path=str(tmp_path / "model"), digest="")).tokenizer.eos_token_id == end


def test_labels_are_the_completion_and_its_end_and_a_sample_that_was_cut_off_has_none(processor: Any) -> None:
    questions = [Question(str(n), "", (), "which?" * n, "", "", "", "") for n in (1, 2)]
    batch = Collator(processor)(
        [{"row": TrainingRow(questions[0], "3 1 2")}, {"row": TrainingRow(questions[1], "3", ended=False)}]
    )
    labels = [[token for token in row if token != IGNORED] for row in batch["labels"].tolist()]
    assert labels == [
        completion_ids(processor.tokenizer, "3 1 2"),
        processor.tokenizer("3", add_special_tokens=False)["input_ids"],
    ]
    supervised = batch["labels"] != IGNORED
    assert (batch["input_ids"][supervised] == batch["labels"][supervised]).all()
    assert batch["attention_mask"][supervised].all()
