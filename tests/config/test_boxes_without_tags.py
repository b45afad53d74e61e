"""What asks for tags is refused beside questions that ask for a box, and a file of tests alone: in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.commands.experiment import load_study
from holdfast.errors import UserError

SFT = {"method": "sft", "source": "answers"}
REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "tests alone": (
        {"path": None, "test_path": "own.jsonl"},
        SFT,
        "target.banner: test_path: needs `path`, the",
    ),
    "thinking": ({"thinking": True}, SFT, "target.banner: thinking: with `grader: boxed` a question says itself how"),
    "a tag": ({"prefill": "<answer>"}, SFT, "target.banner: prefill: with `grader: boxed` no tags are asked for"),
    "own reasoning": ({}, SFT | {"source": "self"}, "arms.a.0.source: self learns reasoning in <think>"),
    "rewards by default": ({}, {"method": "grpo"}, "arms.a.0.rewards.format: pays for tags"),
    "a named format": (
        {},
        {"method": "grpo", "rewards": {"score": 1, "tags": {"kind": "format"}}},
        "arms.a.0.rewards.tags: pays for tags",
    ),
    "length": (
        {},
        {"method": "grpo", "rewards": {"score": 1, "l": {"kind": "length", "variant": "zscore"}}},
        "arms.a.0.rewards.l: measures what stands in <think>",
    ),
}


def load(root: Path, target: dict[str, Any], stage: dict[str, Any]) -> None:
    learned = root / "own.jsonl"
    learned.write_text('{"question": "Box it.", "answer": "A"}\n')
    own = {"benchmark": "banner", "path": str(learned), "grader": "boxed", "thinking": False, **target}
    file = root / "s.yaml"
    file.write_text(yaml.safe_dump({"name": "s", "target": own, "arms": {"a": [stage]}}))
    load_study(file)


@pytest.mark.parametrize(("target", "stage", "said"), REFUSED.values(), ids=REFUSED)
def test_what_a_box_leaves_no_room_for_is_one_sentence(target: dict, stage: dict, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as told:
        load(tmp_path, target, stage)
    assert said in str(told.value)
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 400


@pytest.mark.parametrize("stage", [SFT, SFT | {"source": "teacher"}, {"method": "grpo", "rewards": {"score": 1}}])
def test_a_box_can_be_learned(stage: dict, tmp_path: Path) -> None:
    load(tmp_path, {}, stage)
