"""Evaluations and samples by vLLM are the model's own. What needs vLLM runs in its environment: `make test-vllm`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from tiny_jobs import LIMIT, evaluate_job, pass_at
from vllm_runs import needs_vllm, staged

from holdfast.config.jobs import Check, Evaluate, Sample
from holdfast.config.measurement import Vllm
from holdfast.config.methods import Rollouts
from holdfast.config.refs import DataRef, FileRef, ModelRef
from holdfast.config.study import Study
from holdfast.errors import UserError
from holdfast.models.load import load_model, load_processor, save_checkpoint
from holdfast.models.tiny.shipped import shipped_base
from holdfast.stages.preflight import check

pytestmark = needs_vllm
# On CPUs, vLLM cannot put off part of a prompt whose completion has a seed: a step has room for all.
VLLM = Vllm(arguments={"max_model_len": 512, "enforce_eager": True, "max_num_batched_tokens": 2**15})
BASE = shipped_base()


def notes(out: Path) -> dict[str, Any]:
    return json.loads((out / "result.json").read_text())["notes"]


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> ModelRef:
    """The base with a vision tower that sees otherwise."""
    model, path = load_model(BASE), tmp_path_factory.mktemp("moved") / "model"
    torch.manual_seed(0)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "visual" in name:
                value += 0.2 * value.std() * torch.randn_like(value)
    save_checkpoint(model, load_processor(BASE), path)
    return ModelRef(path=str(path), digest="moved", step=50)


@pytest.fixture(scope="module")
def job(tiny_data: DataRef, moved: ModelRef) -> Evaluate:
    """Models that are asked about the same images, the first again as the third."""
    first, third = (BASE.model_copy(update={"step": step, "digest": "a copy"}) for step in (7, 70))
    return evaluate_job(tiny_data, BASE, [first, moved, third], drift=None)


def test_answers_are_those_of_transformers_for_every_checkpoint(job: Evaluate, run_stage: Callable, tmp_path: Path):
    expected = run_stage(job, tmp_path / "transformers")
    done = staged(job.model_copy(update={"vllm": VLLM}), tmp_path / "vllm")
    assert done.returncode == 0, done.stderr[-3000:]
    files = sorted(expected.glob("records/*/*.parquet"))
    assert len(files) == 9
    assert len({file.read_bytes() for file in files}) == 6
    for file in files:
        ours = pq.read_table(tmp_path / "vllm" / file.relative_to(expected)).to_pylist()
        assert ours == pq.read_table(file).to_pylist(), file
    assert 0 < notes(tmp_path / "vllm")["vllm_difference"] < 1e-4


def test_samples_have_the_models_probabilities_and_are_the_same_twice(
    tiny_data: DataRef, moved: ModelRef, tmp_path: Path
):
    job = Sample(
        source=Rollouts(arm="rft", keep="all", per_prompt=8),
        model=moved,
        base=BASE,
        data=tiny_data,
        questions=FileRef(path=tiny_data.path / "target-train.parquet", digest="tiny"),
        limit=LIMIT,
        vllm=VLLM,
    )
    tables = []
    for name in ("once", "again"):
        done = staged(job, tmp_path / name)
        assert done.returncode == 0, done.stderr[-3000:]
        tables.append(pq.read_table(tmp_path / name / "samples.parquet").to_pylist())
    assert tables[0] == tables[1]
    assert len(tables[0]) == 24 * 8
    assert notes(tmp_path / "once")["vllm_difference"] < 1e-4
    by_prompt = {row["id"]: set() for row in tables[0]}
    for row in tables[0]:
        by_prompt[row["id"]].add(row["completion"])
    assert max(map(len, by_prompt.values())) > 2


def test_the_base_leaves_its_samples_and_pass_at_k(tiny_data: DataRef, tmp_path: Path):
    job = evaluate_job(tiny_data, BASE, pass_at=pass_at(tiny_data, 1, 4), vllm=Vllm())
    done = staged(job, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = pq.read_table(tmp_path / "references.parquet").to_pylist()
    assert len({tuple(row["tokens"]) for row in rows}) == len(rows) == 4
    assert all(
        math.isclose(value, 0, abs_tol=1e-6)
        for value in pq.read_table(tmp_path / "drift/step-000000.parquet")["kl"].to_pylist()
    )
    assert pq.read_table(tmp_path / "pass_at/step-000000.parquet").num_rows == 6


def test_completions_of_another_model_stop_the_evaluation(job: Evaluate, tmp_path: Path):
    done = staged(job.model_copy(update={"vllm": VLLM.model_copy(update={"difference": 1e-12})}), tmp_path)
    assert done.returncode == 2
    assert "evaluation.vllm: log-probabilities of vLLM and of the model" in (tmp_path / "error.json").read_text()


def test_a_completion_is_not_cut_off_silently(job: Evaluate, tmp_path: Path):
    done = staged(
        job.model_copy(update={"vllm": Vllm(arguments={"max_model_len": 64, "enforce_eager": True})}), tmp_path
    )
    assert done.returncode == 2
    assert "are more than vLLM has room for, 64" in (tmp_path / "error.json").read_text()


def test_an_argument_that_vllm_does_not_know_is_refused_before_anything_trains(tiny_data: DataRef):
    evaluation = {"vllm": {"arguments": {"max_model_length": 1}}}
    study = Study(name="s", arms={"a": [{"method": "sft", "source": "answers"}]}, evaluation=evaluation)
    with pytest.raises(UserError, match=r"vllm\.arguments\.max_model_length is no argument of vLLM's; did you mean"):
        check(Check(study=study, data=tiny_data))


def test_arguments_that_vllm_refuses_are_one_sentence(job: Evaluate, tmp_path: Path):
    strange = Vllm(arguments={"max_model_len": 512, "kv_cache_dtype": "float3"})
    done = staged(job.model_copy(update={"vllm": strange}), tmp_path)
    assert done.returncode == 2, done.stderr[-2000:]
    assert "evaluation.vllm: vLLM does not start" in (tmp_path / "error.json").read_text()
