"""What may predict forgetting, by hand on small numbers and on the tiny model."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from loaded_models import counting
from tiny_jobs import BATCH, LIMIT, shards

from holdfast.config.jobs import Predict, Train
from holdfast.config.refs import DataRef, FileRef, ModelRef
from holdfast.data.shards import read_questions
from holdfast.evaluation import predictors as module
from holdfast.evaluation.drift import Pair, Said, divergence, entropy, token_means
from holdfast.evaluation.generate import Reader, Sampling, generate
from holdfast.evaluation.predictors import FILE, movement, perplexity
from holdfast.journal import Journal
from holdfast.models.load import load_model, load_processor, save_checkpoint

HALF = torch.tensor([0.5, 0.25, 0.25]).log()
EVEN = torch.tensor([0.25, 0.25, 0.5]).log()


def test_both_divergences_and_the_entropy_of_three_words_by_hand() -> None:
    # ½ ln 2 + ¼ ln 1 + ¼ ln ½ = ¼ ln 2, either way round; and ½ ln 2 + 2 · ¼ ln 4 = 1.5 ln 2.
    assert float(divergence(HALF + 3, EVEN)) == pytest.approx(0.25 * math.log(2))
    assert float(divergence(EVEN, HALF)) == pytest.approx(0.25 * math.log(2))
    assert float(entropy(HALF - 1, EVEN)) == pytest.approx(1.5 * math.log(2))
    sure = torch.tensor([0.9, 0.05, 0.05]).log()
    assert float(divergence(HALF, sure)) == pytest.approx(0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(5))
    assert float(divergence(sure, HALF)) == pytest.approx(0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.2))


def test_what_is_suppressed_has_no_part_in_the_entropy() -> None:
    suppressed = torch.cat([HALF, torch.tensor([-torch.inf])])
    assert float(entropy(suppressed, suppressed)) == pytest.approx(1.5 * math.log(2))


def test_movement_by_hand() -> None:
    base = {"a": torch.zeros(2, 2), "b": torch.ones(4)}
    now = {"a": torch.tensor([[3.0, 0.0], [0.0, -4.0]]), "b": torch.tensor([1.0, 1.0, 1.0, 1.0 + 1e-4])}
    found = movement(base, now)
    assert found["l1"] == pytest.approx(7 + 1e-4, rel=1e-5)
    assert found["l2"] == pytest.approx(5)
    assert found["spectral"] == pytest.approx(4)
    # In bfloat16, 1 + 10⁻⁴ is 1: of eight weights two are others.
    assert found["changed_bf16"] == 0.25


def test_the_spectral_norm_is_that_of_the_singular_values_whatever_the_shape() -> None:
    torch.manual_seed(0)
    for shape in [(3, 7), (7, 3), (4, 2, 3)]:
        moved = torch.randn(shape)
        largest = np.linalg.svd(moved.flatten(1).numpy(), compute_uv=False)[0]
        assert movement({"w": torch.zeros(shape)}, {"w": moved})["spectral"] == pytest.approx(largest, rel=1e-5)


@pytest.fixture(scope="module")
def moved(tiny_model: ModelRef, tmp_path_factory: pytest.TempPathFactory) -> ModelRef:
    """The tiny model with noise on every weight."""
    model, path = load_model(tiny_model), tmp_path_factory.mktemp("moved") / "model"
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    save_checkpoint(model, load_processor(tiny_model), path)
    return ModelRef(path=str(path), digest="moved", step=50)


@pytest.fixture(scope="module")
def job(moved: ModelRef, tiny_model: ModelRef, tiny_data: DataRef, train_job: Callable[..., Train]) -> Predict:
    """Of a checkpoint that is the base, and of one that is not."""
    target = shards(tiny_data, "jigsaw", "target").validation
    priors = tuple(shards(tiny_data, name, "prior").validation for name in ("color", "count"))
    unmoved = tiny_model.model_copy(update={"step": 7, "digest": "a copy"})
    return Predict(
        models=(unmoved, moved),
        base=tiny_model,
        target=(target,),
        prior=priors,
        prompts=4,
        samples=5,
        limit=LIMIT,
        batch_size=BATCH,
        train=train_job({"method": "sft", "source": "answers", "trainer": {"max_steps": 1}}),
    )


@pytest.fixture(scope="module")
def measured(job: Predict, run_stage: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_stage(job, tmp_path_factory.mktemp("predictors"))


def test_the_base_is_nowhere_else_and_another_model_is(measured: Path) -> None:
    same, other = pq.read_table(measured / FILE).to_pylist()
    assert (same["step"], other["step"]) == (7, 50)
    apart = [name for name in same if name.startswith(("kl_", "l1", "l2", "spectral", "changed"))]
    assert len(apart) == 8
    assert [same[name] for name in apart] == pytest.approx([0] * 8, abs=1e-6)
    assert min(other[name] for name in apart) > 0.05
    assert other["entropy_target"] < same["entropy_target"]
    assert json.loads((measured / "result.json").read_text())["notes"] == {
        "prompts_target": 4,
        "prompts_prior": 4,
        "samples": 5,
    }


def test_beside_a_checkpoint_lies_the_base_alone(job: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beside: list[int] = []
    monkeypatch.setattr(module, "load_model", counting(beside))
    module.predictors(job, tmp_path, Journal(tmp_path))
    assert beside == [0, 1, 1]


def test_each_divergence_is_read_along_the_samples_of_its_first_model(measured: Path, job: Predict) -> None:
    base, model = load_model(job.base), load_model(job.models[1])
    reader = Reader(load_processor(job.base), BATCH)
    prompts = reader.encode(read_questions(job.target[0].path, 4))
    found = pq.read_table(measured / FILE).to_pylist()[1]
    for name, first, second in (("kl_forward", base, model), ("kl_reverse", model, base)):
        said = [ids for [ids] in generate(first, reader, prompts, Sampling(LIMIT, 1.0, seed=job.seed))]
        [values] = token_means(Pair(first, second), reader, Said(prompts, said), 1.0, [divergence])
        assert found[f"{name}_target"] == pytest.approx(sum(values) / 4, rel=1e-4)


def test_perplexity_is_the_exponential_of_the_models_own_loss(job: Predict) -> None:
    model, reader = load_model(job.base), Reader(load_processor(job.base), BATCH)
    [question] = read_questions(job.target[0].path, 1)
    ids = reader.completion_ids(question.reference)
    [prompt] = reader.encode([question])
    inputs: dict[str, Any] = {name: value[None] if value.ndim == 1 else value for name, value in prompt.items()}
    inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([ids])], 1)
    for name in ("attention_mask", "mm_token_type_ids"):
        inputs[name] = torch.cat([inputs[name], torch.full((1, len(ids)), int(name == "attention_mask"))], 1)
    labels = inputs["input_ids"].clone()
    labels[:, : -len(ids)] = -100
    with torch.inference_mode():
        loss = float(model(**inputs, labels=labels).loss)
    assert perplexity(model, reader, [question], [ids]) == pytest.approx(math.exp(loss), rel=0.01)


@pytest.mark.parametrize("given", [{"max_completion_length": 8}, {}], ids=["as given", "as the study has it"])
def test_a_reinforced_stage_learned_from_the_rollouts_that_it_logged_up_to_their_limit(
    given: dict, job: Predict, train_job: Callable[..., Train], run_stage: Callable[..., Path], tmp_path: Path
) -> None:
    assert job.train is not None
    question = read_questions(job.train.questions.path, 1)[0]
    rows = [{"id": question.id, "completion": question.reference}] * 3 + [{"id": "replayed", "completion": "x"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "completions.parquet")
    written = FileRef(path=tmp_path / "completions.parquet", digest="w")
    limit = 16 if given else 8
    train = train_job({"method": "grpo", "trainer": {"max_steps": 1, **given}}).model_copy(update={"limit": limit})
    reinforced = job.model_copy(update={"train": train, "written": written, "models": job.models[:1]})
    out = run_stage(reinforced, tmp_path / "out")
    reader = Reader(load_processor(job.base), BATCH)
    expected = perplexity(load_model(job.base), reader, [question], [reader.completion_ids(question.reference)[:8]])
    assert pq.read_table(out / FILE)["perplexity"][0].as_py() == pytest.approx(expected, rel=1e-4)
