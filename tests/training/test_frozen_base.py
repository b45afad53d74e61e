"""A base that drifts under its adapter while vLLM rolls out is seen, and its training is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from holdfast.config.methods import GRPO
from holdfast.config.refs import ModelRef
from holdfast.errors import UserError
from holdfast.journal import Journal
from holdfast.models.load import load_model
from holdfast.models.lora import adapted
from holdfast.training import stage as training
from holdfast.training.frozen_base import digest, unchanged
from holdfast.training.vllm_rollouts import merged_parameters

LORA = {"r": 4, "target_modules": "all-linear"}
WITH_VLLM = GRPO(method="grpo", lora=LORA, trainer={"use_vllm": True})


@pytest.fixture
def model(tiny_model: ModelRef) -> Any:
    """In half precision, with an adapter that has learned something."""
    found = adapted(load_model(tiny_model, torch.bfloat16), WITH_VLLM, 0)
    for name, parameter in found.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    return found


def merged_in_place(model: Any) -> None:
    """As TRL gives its weights to vLLM."""
    model.merge_adapter()
    model.unmerge_adapter()


def test_merging_in_place_changes_the_base_and_is_refused(model: Any, tmp_path: Path):
    (tmp_path / "checkpoint-3").mkdir()
    said = r"trainer\.use_vllm: weights of the base, .* are others than before"
    with pytest.raises(UserError, match=said), unchanged(model, WITH_VLLM, tmp_path):
        merged_in_place(model)
    assert not tmp_path.exists()


def test_what_learns_may_change_and_copies_may_be_merged(model: Any, tmp_path: Path):
    with unchanged(model, WITH_VLLM, tmp_path):
        for _ in merged_parameters(model):
            pass
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(1.0)
    assert tmp_path.exists()


@pytest.mark.parametrize("given", [{"lora": LORA}, {"trainer": {"use_vllm": True}}])
def test_without_an_adapter_or_without_vllm_nothing_is_read(given: dict[str, Any], tmp_path: Path):
    nothing: Any = None
    with unchanged(nothing, GRPO(method="grpo", **given), tmp_path):
        pass


def test_one_bit_of_one_weight_is_enough(model: Any):
    before = digest(model)
    weight = next(one for one in model.parameters() if not one.requires_grad)
    weight.data.view(torch.int16).view(-1)[-1] ^= 1
    assert digest(model) != before


def test_a_stage_whose_rollouts_change_the_base_has_no_result(
    model: Any, train_job: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    job = train_job(WITH_VLLM.model_dump(exclude_unset=True), keep=1)
    args = SimpleNamespace(fsdp=False, deepspeed=None)
    rolled_out = SimpleNamespace(model=model, args=args, train=lambda **_: merged_in_place(model))
    monkeypatch.setattr(training, "build", lambda *_: rolled_out)
    with pytest.raises(UserError, match="use_vllm"):
        training.train(job, tmp_path, Journal(tmp_path), lambda *_: {})
