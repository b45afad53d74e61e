"""Adapters on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from holdfast.config.methods import SFT
from holdfast.config.refs import directory_digest
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
