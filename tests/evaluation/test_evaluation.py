"""Measuring the tiny model: the same twice, whatever the batch, no drift from itself, samples with their provenance."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from holdfast.benchmarks.catalog import grade
from holdfast.config.jobs import Evaluate, Sample
from holdfast.config.measurement import Evaluation
from holdfast.config.methods import Rollouts, SelfReasoning
from holdfast.config.refs import DataRef, ModelRef
from holdfast.data.shards import read_questions
from holdfast.evaluation.drift import Pair, Reference, divergence, drift, estimate
from holdfast.evaluation.evaluator import Evaluator
from holdfast.evaluation.generate import Reader, Sampling, answer, completion_logits, generate, score
from holdfast.evaluation.records import Record, metrics
from holdfast.evaluation.sampling import Drawn, with_answer
from holdfast.evaluation.stage import begin, measurement
from holdfast.journal import Journal, read_lines
from holdfast.models.encode import teacher_forced
from holdfast.models.load import load_model, load_processor


@pytest.fixture(scope="module")
def model(schooled: ModelRef) -> Any:
    return load_model(schooled)


@pytest.fixture(scope="module")
def evaluator(schooled: ModelRef, tiny_data: DataRef) -> Evaluator:
    return Evaluator(tiny_data, Evaluation(batch_size=5, max_new_tokens=16, drift_prompts=4), load_processor(schooled))


def test_an_evaluation_is_the_same_twice(model: Any, evaluator: Evaluator, tmp_path: Path) -> None:
    first, second = (evaluator.evaluate(model, tmp_path / name) for name in ("a.parquet", "b.parquet"))
    assert first == second
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_a_record_carries_the_graders_verdict(model: Any, evaluator: Evaluator, tmp_path: Path) -> None:
    measured = evaluator.evaluate(model, tmp_path / "records.parquet")
    rows = pq.read_table(tmp_path / "records.parquet").to_pylist()
    assert len(rows) == 6 + 5 + 5
    for row, question in zip(rows, evaluator.questions[: len(rows)], strict=True):
        verdict = grade(question.grader, row["completion"], question.answer)
        assert (row["parsed"], row["correct"], row["score"]) == verdict
        assert row["role"] == ("target" if question.benchmark == "jigsaw" else "prior")
    assert {f"validation/{name}" for name in metrics([Record(**row) for row in rows])} <= measured.keys()


def test_validation_questions_are_others_than_test_questions(evaluator: Evaluator) -> None:
    tested, validation = evaluator.questions[: evaluator.validation], evaluator.questions[evaluator.validation :]
    assert len(validation) == 6 + 5 + 5
    assert not {question.images for question in tested} & {question.images for question in validation}


def test_validation_takes_no_more_questions_than_were_asked_for(schooled: ModelRef, tiny_data: DataRef) -> None:
    evaluator = Evaluator(tiny_data, Evaluation(validation=2), load_processor(schooled))
    assert len(evaluator.questions) - evaluator.validation == 3 * 2


def test_log_probabilities_do_not_depend_on_the_batch(model: Any, evaluator: Evaluator) -> None:
    alone = Reader(evaluator.reader.processor, 1)
    ours = score(model, evaluator.reader, evaluator.prompts, evaluator.references)
    theirs = score(model, alone, evaluator.prompts, evaluator.references)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one.logprobs, other.logprobs, atol=1e-4)


def test_scores_are_those_of_the_whole_sequence_in_one_plain_forward_pass(model: Any, evaluator: Evaluator) -> None:
    prompt, reference = evaluator.prompts[0], torch.tensor(evaluator.references[0])
    inputs = {name: value[None] if value.ndim == 1 else value for name, value in prompt.items()}
    inputs["input_ids"] = torch.cat([inputs["input_ids"], reference[None]], 1)
    for name in ("attention_mask", "mm_token_type_ids"):
        extra = torch.full((1, len(reference)), int(name == "attention_mask"))
        inputs[name] = torch.cat([inputs[name], extra], 1)
    with torch.inference_mode():
        logprobs = model(**inputs).logits[0].log_softmax(-1)[-len(reference) - 1 : -1]
    expected = logprobs.gather(-1, reference[:, None])[:, 0]
    found = score(model, evaluator.reader, evaluator.prompts[:1], evaluator.references[:1])[0].logprobs
    assert torch.allclose(found, expected, atol=1e-2)


def test_an_answer_recognised_without_decoding_is_what_decoding_writes(model: Any, evaluator: Evaluator) -> None:
    decoded = [ids for [ids] in generate(model, evaluator.reader, evaluator.prompts, Sampling(16))]
    recognised, scored = answer(model, evaluator.reader, evaluator.prompts, decoded, 16)
    assert recognised == decoded
    assert sum(item.greedy for item in scored) >= len(decoded) - 1


def test_samples_follow_their_seed_and_leave_torchs_random_state_alone(model: Any, evaluator: Evaluator) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, again, other = (
        generate(model, evaluator.reader, evaluator.prompts[:6], Sampling(16, 1.0, 2, seed)) for seed in (1, 1, 2)
    )
    assert first == again != other
    assert torch.equal(torch.get_rng_state(), state)


def test_a_model_has_not_drifted_from_itself_and_a_trained_one_has(
    evaluated: Path, train_job: Callable, schooled: ModelRef, tiny_model: ModelRef, tmp_path: Path
) -> None:
    assert json.loads((evaluated / "result.json").read_text())["metrics"]["kl/target"] == pytest.approx(0, abs=1e-6)
    job = train_job({"method": "sft", "source": "answers"})
    measure = measurement(job, tmp_path, load_processor(tiny_model))
    assert measure(load_model(schooled), 1)["kl/target"] > 0.1
    assert measure(load_model(tiny_model), 2)["kl/target"] == pytest.approx(0, abs=1e-6)


def test_the_divergence_is_the_sum_over_the_vocabulary_without_what_is_suppressed() -> None:
    base, now = torch.tensor([0.5, 0.5, 0.0]).log(), torch.tensor([0.25, 0.75, 0.0]).log()
    assert float(divergence(base + 3, now - 2)) == pytest.approx(
        0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    )


def test_drift_counts_what_the_base_hardly_ever_samples() -> None:
    """Of p = 1e-4 for a token that the other model always writes, a hundred samples say nothing."""
    base, now = torch.tensor([1 - 1e-4, 1e-4]).log(), torch.tensor([1e-3, 1 - 1e-3]).log()
    exact = float(divergence(base, now))
    assert exact == pytest.approx(6.906, abs=1e-3)
    assert float(estimate(base[[0] * 100], now[[0] * 100])) < 0.9 * exact


def test_the_estimate_from_many_samples_is_the_kl() -> None:
    torch.manual_seed(0)
    base, now = (torch.randn(5).double().log_softmax(0) for _ in range(2))
    drawn = torch.multinomial(base.exp(), 200_000, replacement=True)
    assert float(estimate(base[drawn], now[drawn])) == pytest.approx(float(divergence(base, now)), rel=0.03)


def test_drift_is_that_of_two_plain_forward_passes_whatever_the_batch(
    evaluator: Evaluator, tiny_model: ModelRef, schooled: ModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = Pair(load_model(tiny_model), load_model(schooled))
    prompts, references = (
        evaluator.prompts[:3],
        [Reference(str(n), ids, []) for n, ids in enumerate(evaluator.references[:3])],
    )
    references[1].tokens[2:] = []
    found = drift(models, evaluator.reader, prompts, references, temperature=2.0)
    monkeypatch.setattr("holdfast.evaluation.drift.VALUES", 1)
    monkeypatch.setattr("holdfast.evaluation.drift.POSITIONS", 1)
    assert drift(models, evaluator.reader, prompts, references, temperature=2.0) == pytest.approx(found, rel=1e-4)
    for prompt, reference, kl in zip(prompts, references, found, strict=True):
        given = teacher_forced([prompt], [reference.tokens], evaluator.reader.pad, torch.device("cpu"))
        with torch.inference_mode():
            base, now = (
                (completion_logits(model, given)[0].double() / 2).softmax(-1).clamp_min(1e-300) for model in models
            )
        assert kl == pytest.approx(float((base * (base / now).log()).sum(-1).mean()), rel=1e-4)


def test_drift_can_be_estimated_without_a_second_model(
    evaluated: Path, train_job: Callable, schooled: ModelRef, tiny_model: ModelRef, tmp_path: Path
) -> None:
    job = train_job({"method": "sft", "source": "answers"})
    sampled = job.model_copy(update={"evaluation": job.evaluation.model_copy(update={"drift": "sampled"})})
    processor, model = load_processor(tiny_model), load_model(schooled)
    estimated, exact = (measurement(j, tmp_path, processor)(model, 1)["kl/target"] for j in (sampled, job))
    assert 0 < estimated != exact
    rows = pq.read_table(tmp_path / "drift" / "step-000001.parquet").to_pylist()
    assert sum(row["kl"] for row in rows) / len(rows) == pytest.approx(exact)


def test_pass_at_k_grows_with_k(model: Any, schooled: ModelRef, tiny_data: DataRef) -> None:
    asked = Evaluation(batch_size=8, max_new_tokens=16, pass_at=(1, 4), temperature=2.0)
    found = Evaluator(tiny_data, asked, load_processor(schooled)).pass_at(model, seed=0)
    assert 0 <= found["target/jigsaw/pass_at_1"] <= found["target/jigsaw/pass_at_4"] <= 1


@pytest.fixture(scope="module")
def sample_job(schooled: ModelRef, tiny_data: DataRef) -> Callable[..., Sample]:
    def make(source: Rollouts | SelfReasoning) -> Sample:
        evaluation = Evaluation(batch_size=8, max_new_tokens=16)
        return Sample(source=source, model=schooled, base=schooled, data=tiny_data, evaluation=evaluation)

    return make


def test_rollouts_are_graded_filtered_and_know_where_they_come_from(
    sample_job: Callable, run_stage: Callable, tiny_data: DataRef, tmp_path: Path
) -> None:
    everything, correct = (
        pq.read_table(
            run_stage(sample_job(Rollouts(arm="rft", keep=keep, per_prompt=8)), tmp_path / keep) / "samples.parquet"
        ).to_pylist()
        for keep in ("all", "correct")
    )
    questions = {question.id: question for question in read_questions(tiny_data.path / "target-train.parquet")}
    assert len(everything) == 24 * 8
    assert correct == [row for row in everything if row["accuracy"] == 1.0]
    for row in everything:
        assert row["score"] == grade("jigsaw", row["completion"], questions[row["id"]].answer).score
        assert (row["model"], row["step"], row["temperature"], row["seed"]) == ("schooled", 50, 1.0, 0)


def test_samples_that_the_limit_cut_off_are_marked(sample_job: Callable, run_stage: Callable, tmp_path: Path) -> None:
    job = sample_job(Rollouts(arm="rft", keep="all"))
    tight = job.model_copy(update={"evaluation": Evaluation(batch_size=8, max_new_tokens=3)})
    for place, cut in ((job, False), (tight, True)):
        rows = pq.read_table(run_stage(place, tmp_path / str(cut)) / "samples.parquet").to_pylist()
        assert any(row["ended"] for row in rows) is not cut


def test_a_source_that_yields_nothing_is_refused_with_a_remedy(
    sample_job: Callable, run_stage: Callable, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as ended:
        run_stage(sample_job(SelfReasoning()), tmp_path)
    assert ended.value.code == 2
    assert "source self: none of 24 samples" in json.loads((tmp_path / "error.json").read_text())["message"]


def test_own_reasoning_gets_the_right_answer_and_no_reasoning_gets_none(evaluator: Evaluator) -> None:
    question = evaluator.target[0]
    written = "<think> i look </think> <answer> 9 9 </answer>"
    assert with_answer(Drawn(question, 0, written)) == f"<think> i look </think> <answer> {question.answer} </answer>"
    assert with_answer(Drawn(question, 0, "<answer> 1 2 3 4 </answer>")) is None
    assert with_answer(Drawn(question, 0, "<think> </think>")) is None


def test_an_evaluation_job_leaves_what_later_stages_are_compared_with(
    evaluated: Path, tiny_model: ModelRef, tiny_data: DataRef, run_stage: Callable, tmp_path: Path
) -> None:
    result = json.loads((evaluated / "result.json").read_text())
    assert {"evaluations/step-000000.parquet", "drift.parquet"} <= result["files"].keys()
    job = Evaluate.model_validate_json((evaluated / "job.json").read_text())
    again = json.loads((run_stage(job, tmp_path) / "result.json").read_text())
    assert again["files"] == result["files"]
    assert again["metrics"] == result["metrics"]


def test_a_training_from_the_base_begins_with_what_the_base_scored_and_one_from_another_model_does_not(
    evaluated: Path, train_job: Callable[..., Any], tmp_path: Path
) -> None:
    job = train_job({"method": "sft", "source": {"kind": "answers"}})
    journal = Journal(tmp_path)
    begin(job.model_copy(update={"start": ModelRef(path="elsewhere", digest="of an earlier stage")}), journal)
    assert read_lines(journal.path) == []
    begin(job, journal)
    begin(job, journal)
    [line] = read_lines(journal.path)
    base = json.loads((evaluated / "result.json").read_text())["metrics"]
    assert line["step"] == 0
    assert base.items() <= line["metrics"].items()
    assert line["metrics"]["forgetting/mean"] == line["metrics"]["forgetting/color"] == 0
    assert line["metrics"].get("retention", 1.0) == 1.0
