"""Models between two others: on the line, at the share that was asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from holdfast.config.jobs import Blend
from holdfast.config.refs import ModelRef
from holdfast.config.study import Study
from holdfast.models.load import load_model


def test_every_weight_lies_at_its_share_of_the_way(
    tiny_model: ModelRef, schooled: ModelRef, run_stage: Callable, tmp_path: Path
) -> None:
    out = run_stage(Blend(start=tiny_model, end=schooled, shares=(0.25, 0.75)), tmp_path)
    start, end = (load_file(Path(ref.path) / "model.safetensors") for ref in (tiny_model, schooled))
    for step, share in ((1, 0.25), (2, 0.75)):
        between = load_file(out / "checkpoints" / f"step-{step:06d}" / "model.safetensors")
        for name, value in between.items():
            torch.testing.assert_close(value, start[name] + share * (end[name] - start[name]))
    load_model(ModelRef(path=str(out / "checkpoints" / "step-000001"), digest="x"))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no such arm": ({"arm": "rft"}, "name one that trains without lora: sft"),
    "an adapter": ({"arm": "adapter"}, "name one that trains without lora: sft"),
    "itself": ({"arm": "between"}, "name one that trains"),
    "shares in disorder": ({"arm": "sft", "shares": [0.5, 0.25]}, "in ascending order"),
    "the end itself": ({"arm": "sft", "shares": [1.0]}, "less than 1"),
}


@pytest.mark.parametrize(("given", "said"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_way_between_two_models_is_refused(given: dict, said: str) -> None:
    sft = {"method": "sft", "source": "answers"}
    lora = sft | {"lora": {"r": 2}}
    arms = {"sft": [sft], "adapter": [lora], "between": [{"method": "interpolate", **given}]}
    with pytest.raises(ValidationError, match=said):
        Study.model_validate({"name": "s", "arms": arms})
