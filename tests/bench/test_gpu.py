"""The bench for a card has the published shape, goes on where a part fails, and never shows a stand-in as a card."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from published import without_weights

from bench import gpu
from bench.gpu_parts import Bench, Row
from bench.qwen import QWEN_3B, STAND_IN, model_of
from holdfast.models.shape import shape_of

STOOD_IN = Bench(STAND_IN, torch.device("cpu"), 1e10)


def test_the_shape_is_that_of_the_published_model(processor: Any) -> None:
    made = model_of(QWEN_3B, processor, torch.device("meta"), torch.bfloat16)
    assert shape_of(made) == shape_of(without_weights("Qwen/Qwen2.5-VL-3B-Instruct"))
    assert made.dtype == torch.bfloat16


def test_what_does_not_fit_or_comes_too_late_is_said_and_the_rest_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def too_large(bench: Bench) -> list[Row]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(gpu, "PARTS", {"large": too_large, "small": lambda bench: [Row("small", 0.5)]})
    gpu.report(STOOD_IN, tmp_path / "found.json")
    large, small = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert (large["note"], small["seconds"]) == ("does not fit: CUDA out of memory", 0.5)
    monkeypatch.setattr(gpu, "LAST_START", -1)
    assert [row.note for part in gpu.measured(STOOD_IN) for row in part] == ["left out: seven minutes were over"] * 2


@pytest.mark.slow
def test_without_a_card_every_part_runs_on_a_stand_in_and_every_line_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.models.vllm_engine.find_spec", lambda name: None)
    gpu.report(STOOD_IN, tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["card"], found["stand_in"], found["shape"]) == (None, True, "tiny stand-in")
    assert found["versions"]["torch"] == torch.__version__.partition("+")[0]
    lines = capsys.readouterr().out.splitlines()[4:]
    assert len(lines) == len(found["rows"]) == 9
    assert all("(tiny stand-in on a CPU)" in line for line in lines)
    left_out = found["rows"].pop()
    assert left_out["note"].startswith("Holdfast with vLLM is left out: bench.gpu: vLLM is not in this environment")
    assert all(row["stand_in"] and math.isfinite(row["seconds"]) and row["seconds"] > 0 for row in found["rows"])
    whats = [row["what"].partition(" (")[0] for row in found["rows"] if row["utilisation"]]
    assert whats == ["SFT, LoRA", "SFT, full"]
    ratios = [row["ratio"] for row in found["rows"] if row["ratio"]]
    assert len(ratios) == 3
    assert all(least <= middle <= most for middle, least, most in ratios)
