"""Adapters on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from holdfast.config.methods import SFT
from holdfast.config.refs import directory_digest
from holdfast.errors import UserError
from holdfast.models.load import save_checkpoint
from holdfast.models.lora import adapted
from holdfast.models.tiny.build import build_model


def test_every_process_writes_the_same_bytes_of_an_adapter(processor: Any, tmp_path: Path) -> None:
    """peft holds the names of modules in a set, whose order hangs on the process."""
    lora = {"r": 2, "target_modules": "all-linear"}
    stage = SFT.model_validate({"method": "sft", "source": "answers", "lora": lora})
    model = adapted(build_model(processor, hidden=64, layers=1), stage, seed=0)
    settings = model.peft_config["default"]
    names = sorted(settings.target_modules)
    assert len(names) > 1
    for place, order in (("one", names), ("other", names[::-1])):
        settings.target_modules = order
        save_checkpoint(model, processor, tmp_path / place)
    assert directory_digest(tmp_path / "one") == directory_digest(tmp_path / "other")


def adapter(processor: Any, freeze: tuple[str, ...] = ("vis",), **lora: Any) -> Any:
    stage = {"method": "sft", "source": "answers", "freeze": freeze, "lora": {"r": 2, **lora}}
    with torch.device("meta"):
        model = build_model(processor, hidden=64, layers=1)
    return adapted(model, SFT.model_validate(stage), seed=0)


@pytest.mark.parametrize(
    ("lora", "words"),
    [
        (["q_proj", "qq_proj"], "no module is called `qq_proj`; did you mean q_proj?"),
        (
            ["q_proj", "unheard"],
            "no module is called `unheard`; its linear layers are called down_proj, gate_proj, k_proj,",
        ),
        (r".*\.qq_proj", r"no module is called `.*\.qq_proj`; did you mean q_proj?"),
        (
            ["q_proj", "qkv"],
            "what `qkv` names stays as it is (model.visual.blocks.0.attn.qkv); take it out, or set freeze",
        ),
        (r".*\.qkv", r"what `.*\.qkv` names stays as it is"),
        ("(", "missing ), unterminated subpattern at position 0; see peft.LoraConfig"),
    ],
)
def test_a_name_that_matches_nothing_which_may_learn_is_refused(processor: Any, lora: Any, words: str) -> None:
    with pytest.raises(UserError) as refused:
        adapter(processor, target_modules=lora)
    assert words in str(refused.value)
    assert str(refused.value).startswith("lora")


def test_what_a_study_excludes_itself_is_named_as_such(processor: Any) -> None:
    with pytest.raises(UserError, match=r"or change lora\.exclude_modules$"):
        adapter(processor, target_modules=["q_proj"], exclude_modules=["q_proj"])


@pytest.mark.parametrize(
    ("lora", "adapters"),
    [
        (["self_attn.q_proj", "model.language_model.layers.0.mlp.down_proj"], 2),
        (r".*\.(q|k)_proj", 2),
        ("All-Linear", 7),
    ],
)
def test_names_endings_and_patterns_are_taken_as_peft_takes_them(processor: Any, lora: Any, adapters: int) -> None:
    assert len(adapter(processor, target_modules=lora).base_model.targeted_module_names) == adapters


def test_names_in_the_tower_are_taken_where_it_learns(processor: Any) -> None:
    assert adapter(processor, freeze=(), target_modules=["qkv"]).base_model.targeted_module_names
