"""What a preflight says, of numbers by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from repositories import holdfast, new_repository

from flows.commands.preflight import lines
from flows.preflight import Preflight
from holdfast.config.refs import ModelRef
from holdfast.config.study import Study
from tasks.tracking import Store

MEMORY = dict.fromkeys(("weights", "gradients", "optimizer", "copies", "reference", "activations", "head"), 0)
NEED = {
    "shape": {"parameters": 3_000_000_000, "learning": 30_000_000},
    "memory": MEMORY
    | {"weights": 6_000_000_000, **dict.fromkeys(("generation", "vllm", "measuring"), 0), "total": 8_000_000_000},
    "disk": {"kept": 200_000_000, "running": 40_000_000_000},
    "influence": {"total": 18e9, "activations": 8e9, "head": 2e9, "host": 6e9},
    "ledger": {"total": 12e9},
    "steps": 100,
    "operations": 2 * 10**12,
}


ARM = {"method": "sft", "source": "answers", "trainer": {"max_steps": 100}}


def study(tokens: bool, stage: dict[str, Any]) -> Study:
    return Study.model_validate({"name": "a", "arms": {"a": [stage]}, "influence": {"ledger": {"tokens": tokens}}})


def said(tokens: bool, tried: dict[str, Any], stage: dict[str, Any] = ARM) -> list[str]:
    checked = {"longest_prompt": 900, "longest_answer": 60, "needs": {"arms.a.0": NEED}, "memory_there": 80_000_000_000}
    return list(lines(study(tokens, stage), Preflight(checked, {"arms.a.0": tried}), Path()))


def test_a_ledger_has_its_memory_and_time_before_anything_starts() -> None:
    tried = {"seconds_a_step": 6.0, "peak": 7e9}
    assert "  ledger: 12 GB, about 25 min after the training, benchmarks' gradients apart" in said(True, tried)
    assert "  ledger: 12 GB, about 12 min after the training, benchmarks' gradients apart" in said(False, tried)
    grpo = {"method": "grpo"}
    assert "  ledger: 12 GB, about 33 min after the training, benchmarks' gradients apart" in said(True, tried, grpo)
    assert "  ledger: 12 GB, about 19 min after the training, benchmarks' gradients apart" in said(False, tried, grpo)
    assert "  ledger: 12 GB" in said(True, {}), "no step was tried"


def test_influence_that_was_tried_is_told_with_its_time_at_all_checkpoints() -> None:
    """At the beginning and at 4 of 100 steps: 10 s for the samples each, and twice 8 · 4 s for 16 questions."""
    times = {"seconds_samples": 10.0, "seconds_questions": 4.0, "questions": 2}
    fits = {"seconds_a_step": 6.0, "peak": 7e9, "influence": {"samples": 24, "peak": 17e9, **times}}
    told = (
        "  influence tried: at most 17 GB with the 24 longest samples; about 6 min after the training if all were so "
    )
    assert f"{told}long" in said(True, fits)
    assert f"{told}long, sampling apart" in said(True, fits, {"method": "grpo"})
    failed = {"influence": {"failed": "influence: a batch of samples does not fit"}}
    assert "  influence tried: a batch of samples does not fit" in said(True, fits | failed)


def test_influence_is_told_with_its_batch_and_what_lies_on_the_host() -> None:
    assert "  influence: 18 GB, 10 GB of it for a batch, and 6.0 GB of the host's memory" in said(True, {})


@pytest.mark.slow
def test_the_command_tries_every_stage_and_trains_nothing(
    tiny_model: ModelRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = {"max_steps": 50, "per_device_train_batch_size": 4}
    new_repository(
        tmp_path,
        {
            "name": "tiny",
            "model": {"path": tiny_model.path},
            "target": {"train": 8, "validation": 2, "test": 4},
            "prior": [{"benchmark": "color", "questions": 4, "validation": 4}],
            "arms": {
                "rft": [{"method": "grpo", "trainer": {**trainer, "num_generations": 4, "max_completion_length": 16}}],
                "answers": [{"method": "sft", "source": "answers", "trainer": trainer}],
            },
            "evaluation": {"max_new_tokens": 16, "drift_prompts": 2},
            "influence": {"samples": 4, "questions": 2},
        },
    )
    code, stdout, stderr = holdfast(tmp_path, str(tmp_path), "preflight", "tiny.yaml")
    assert code == 0, stderr
    for arm in ("rft", "answers"):
        [block] = re.findall(rf"arms\.{arm}\.0:\n((?:  .*\n)+)", stdout)
        assert re.search(r"  tried: \d+\.\d\d s a step, at most \d+ MB", block), block
        assert re.search(r"  influence tried: at most \d.* with the 4 longest samples; about \d+ s", block), block
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert not Store(tmp_path).search("tags.`holdfast.kind` = 'train'")
    assert not list(tmp_path.rglob("trial-*"))
