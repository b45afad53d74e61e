"""From a study to jobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.jobs import Start, train_job
from holdfast.config.refs import DataRef, FileRef, ModelRef
from holdfast.config.study import Study
from tasks.stage_cache import stage_key


def key(here: Path) -> str:
    """Of a stage that is rewarded by a function of the user's own."""
    rewards = {"score": 1.0, "mine": {"function": "rewards_of_a_stage:polite"}}
    study = Study(name="s", arms={"rft": [{"method": "grpo", "rewards": rewards}]})
    reference = FileRef(path=here / "drift.parquet", digest="r")
    base = ModelRef(path="model", digest="m")
    start = Start(data=DataRef(path=here, digest="d"), base=base, reference=reference)
    return stage_key(train_job(study, study.arms["rft"][0], base, None, start))


def test_a_changed_reward_function_is_another_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = tmp_path / "rewards_of_a_stage.py"
    module.write_text("def polite(completions, **others): return [0.0] * len(completions)\n")
    before = key(tmp_path)
    assert key(tmp_path) == before
    module.write_text("def polite(completions, **others): return [1.0] * len(completions)\n")
    assert key(tmp_path) != before
