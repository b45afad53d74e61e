"""A study with ledgers through the command line: runs in MLflow, a section in the report, an arm that leaves out."""

import json
import tempfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from repositories import holdfast, new_repository

from holdfast.config.refs import ModelRef
from tasks.tracking import Store

pytestmark = pytest.mark.slow

SFT = {"max_steps": 3, "per_device_train_batch_size": 4}
LEARNED = {"method": "sft", "source": "answers", "trainer": SFT}
STUDY = {
    "name": "tiny",
    "target": {"train": 8, "validation": 2, "test": 4},
    "prior": [{"benchmark": "color", "questions": 4}],
    "arms": {
        "rft": [{"method": "grpo", "trainer": {**SFT, "num_generations": 4, "max_completion_length": 16}}],
        "answers": [LEARNED],
        "unblamed": [{**LEARNED, "select": {"by": "ledger", "arm": "answers", "drop": 0.25}}],
    },
    "evaluation": {"keep": 2, "every": 1, "max_new_tokens": 16, "drift_prompts": 2},
    "influence": {"every": 1, "samples": 4, "questions": 2, "probes": 0, "ledger": {"nodes": 1}},
    "compute": {"device": "cpu"},
}


def test_a_study_accounts_for_its_samples_and_leaves_out_what_is_blamed(
    tmp_path: Path, tiny_model: ModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_repository(tmp_path, {**STUDY, "model": {"path": tiny_model.path}})
    with tempfile.TemporaryDirectory(prefix="hf") as places:
        done = holdfast(tmp_path, places, "study", "tiny.yaml")
    code, _, stderr = done
    assert code == 0, stderr
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = Store(tmp_path)
    ledgers = {run.data.tags["holdfast.arm"]: run for run in store.search("tags.`holdfast.kind` = 'ledger'")}
    assert set(ledgers) == {"rft", "answers", "unblamed"}
    assert "ledger/answers/color/samples" in ledgers["answers"].data.metrics
    for arm, run in ledgers.items():
        result = json.loads((store.artifacts.of(run) / "result.json").read_text())
        assert result["notes"]["seconds, training again,"] == 0, "its steps were kept"
        closure = pq.read_table(store.artifacts.of(run) / "closure.parquet").to_pandas()
        # A random model's rollouts are all wrong, so they have no advantages and move nothing.
        assert (closure.measured.abs().sum() > 0) == (arm != "rft")
    assert not list((tmp_path / "mlruns" / "work").glob("*.steps")), "and are gone"
    page = done.report
    assert "What lost the prior" in page.read_text()
    summary = json.loads((page.parent / "summary.json").read_text())
    assert {row["account"] for row in summary["influence"]["ledger"]} >= {"first third", "curvature", "measured"}
    [left_out] = summary["removal"]
    assert (left_out["arm"], left_out["whole"], left_out["kept"]) == ("unblamed", "answers", 0.75)
    assert left_out["measured"] is not None
    assert left_out["predicted"] > 0
    assert "Does leaving samples out do what the ledger says?" in page.read_text()
