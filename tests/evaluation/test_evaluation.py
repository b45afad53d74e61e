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
from loaded_models import counting
from tiny_jobs import BATCH, LIMIT, REFERENCES, benchmarks, evaluate_job, pass_at, shards

from holdfast import group
from holdfast.benchmarks.catalog import grade, grade_leniently
from holdfast.config.jobs import Evaluate, Sample
from holdfast.config.measurement import Vllm
from holdfast.config.methods import Rollouts, SelfReasoning
from holdfast.config.refs import DataRef, FileRef, ModelRef
from holdfast.data.shards import read_questions
from holdfast.errors import UserError
from holdfast.evaluation import stage
from holdfast.evaluation.drift import Pair, Reference, divergence, drift, estimate
from holdfast.evaluation.evaluator import Evaluator, asked, right_of
from holdfast.evaluation.generate import Reader, Sampling, answer, completion_logits, generate, rows_of_logits, score
from holdfast.evaluation.records import Record, measured, read_records
from holdfast.evaluation.sampling import Drawn, with_answer
from holdfast.evaluation.stage import cut_off, flips
from holdfast.evaluation.vllm_decoder import decoder_of
from holdfast.journal import Journal, read_lines
from holdfast.models.encode import teacher_forced
from holdfast.models.load import load_model, load_processor

OF_A_RUN = ("job.json", "metrics.jsonl")
"""Files with places and times."""


@pytest.fixture(scope="module")
def model(schooled: ModelRef) -> Any:
    return load_model(schooled)


@pytest.fixture(scope="module")
def evaluator(schooled: ModelRef, tiny_data: DataRef) -> Evaluator:
    questions = asked(benchmarks(tiny_data), ("test", "validation"), 32)
    return Evaluator(questions, Reader(load_processor(schooled), 5), LIMIT)


def test_vllm_is_refused_among_several_processes(
    tiny_data: DataRef, tiny_model: ModelRef, processor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the check was found, which does not see how many there are."""
    monkeypatch.setattr(group, "size", lambda: 2)
    with pytest.raises(UserError, match=r"evaluation\.vllm: works on one GPU, and compute\.gpus is 2"):
        decoder_of(evaluate_job(tiny_data, tiny_model, vllm=Vllm()), processor)
    assert decoder_of(evaluate_job(tiny_data, tiny_model), processor) is None


def test_an_evaluation_is_the_same_twice(model: Any, evaluator: Evaluator) -> None:
    first, second = (list(evaluator.evaluate(model)) for _ in range(2))
    assert first == second


def test_a_record_carries_the_graders_verdict(model: Any, evaluator: Evaluator) -> None:
    records = list(evaluator.evaluate(model))
    assert len(records) == 2 * (6 + 5 + 5)
    for record, (benchmark, split, question) in zip(records, evaluator.asked, strict=True):
        verdict = grade(question.grader, record.completion, question.answer)
        assert (record.parsed, record.correct, record.score) == verdict
        assert (record.benchmark, record.split, record.id) == (benchmark.name, split, question.id)
        assert record.role == ("target" if record.benchmark == "jigsaw" else "prior")


def test_an_answer_without_its_end_is_cut_off_and_one_that_ends_at_the_limit_is_not(
    model: Any, evaluator: Evaluator
) -> None:
    ended = {(one.split, one.id): one.tokens for one in evaluator.evaluate(model) if not one.cut}
    assert ended
    limit = max(ended.values())
    for most in (limit, limit - 1):
        records = list(Evaluator(evaluator.asked, evaluator.reader, most).evaluate(model))
        cut = [record for record in records if record.cut]
        assert all(record.tokens == most for record in cut)
        whole = {(record.split, record.id) for record in records if not record.cut}
        assert whole == {key for key, tokens in ended.items() if tokens <= most}


def test_a_targets_answer_is_read_leniently_as_well_and_a_priors_is_not(model: Any, evaluator: Evaluator) -> None:
    for record in evaluator.evaluate(model):
        lenient = grade_leniently("jigsaw", record.completion, record.answer).score
        assert record.lenient == (lenient if record.role == "target" else None)


def test_who_asks_for_too_short_answers_is_told(
    tiny_model: ModelRef, tiny_data: DataRef, run_stage: Callable[..., Path], tmp_path: Path
) -> None:
    out = run_stage(evaluate_job(tiny_data, tiny_model, limit=2, drift=None), tmp_path)
    [jigsaw, *others] = json.loads((out / "result.json").read_text())["notes"]["told"]
    assert jigsaw.startswith("jigsaw: 100% of the answers at step 0 are cut off at evaluation.max_new_tokens 2, ")
    assert len(others) == 2
    [line] = [line for line in read_lines(out / "metrics.jsonl") if "metrics" in line]
    assert line["metrics"]["target/jigsaw/cut"] == line["metrics"]["prior/color/cut"] == 1.0


def test_a_few_answers_that_are_cut_off_are_not_told_and_the_worst_step_is() -> None:
    few = {"target/jigsaw/cut": 0.05, "prior/color/cut": 0.0, "validation/prior/color/cut": 1.0}
    assert cut_off({0: few}, 16) == []
    [told] = cut_off({0: few, 4: few | {"prior/color/cut": 0.5}, 8: few | {"prior/color/cut": 0.25}}, 16)
    assert told.startswith("color: 50% of the answers at step 4 are cut off at evaluation.max_new_tokens 16, ")


def test_validation_questions_are_others_than_test_questions(evaluator: Evaluator) -> None:
    tested, validation = (
        {image for one in evaluator.asked if one.split == split for image in one.question.images}
        for split in ("test", "validation")
    )
    assert tested
    assert validation
    assert not tested & validation


def test_validation_takes_no_more_questions_than_were_asked_for(tiny_data: DataRef) -> None:
    assert len(asked(benchmarks(tiny_data), ("validation",), 2)) == 3 * 2
    assert len(asked(benchmarks(tiny_data), ("test",), 2)) == 6 + 5 + 5


def test_log_probabilities_do_not_depend_on_the_batch(model: Any, evaluator: Evaluator) -> None:
    alone = Reader(evaluator.reader.processor, 1)
    ours = score(model, evaluator.reader, evaluator.prompts, evaluator.references)
    theirs = score(model, alone, evaluator.prompts, evaluator.references)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one.logprobs, other.logprobs, atol=1e-4)


def test_a_batch_is_as_small_as_its_logits_are_large(
    model: Any, evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts, completions = evaluator.prompts[:6], [[0] * 10, *[[0] * 3] * 5]
    monkeypatch.setattr("holdfast.evaluation.generate.VALUES", 3 * 10 * model.config.get_text_config().vocab_size)
    reader = Reader(evaluator.reader.processor, 6)
    each = rows_of_logits(model, reader, completions)
    assert [len(batch) for batch in reader.batches(prompts, each)] == [3, 3]


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


@pytest.fixture(scope="module")
def references(evaluated: Path) -> FileRef:
    """The base's own samples."""
    return FileRef(path=evaluated / REFERENCES, digest="samples of the base")


def kl(out: Path, step: int) -> float:
    """Mean over prompts."""
    values = pq.read_table(out / "drift" / f"step-{step:06d}.parquet")["kl"].to_pylist()
    assert len(values) == 4
    return sum(values) / len(values)


@pytest.fixture(scope="module")
def checkpoints(references: FileRef, schooled: ModelRef, tiny_model: ModelRef, tiny_data: DataRef) -> Evaluate:
    """Asks the trained model and one that has learned nothing."""
    unmoved = tiny_model.model_copy(update={"step": 7, "digest": "a copy"})
    return evaluate_job(tiny_data, tiny_model, [schooled, unmoved], references, pass_at=pass_at(tiny_data, 1, 4))


@pytest.fixture(scope="module")
def measured_checkpoints(
    checkpoints: Evaluate, run_stage: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return run_stage(checkpoints, tmp_path_factory.mktemp("checkpoints"))


def test_a_model_has_not_drifted_from_itself_and_a_trained_one_has(evaluated: Path, measured_checkpoints: Path) -> None:
    assert json.loads((evaluated / "result.json").read_text())["metrics"]["kl/target"] == pytest.approx(0, abs=1e-6)
    assert kl(evaluated, 0) == pytest.approx(0, abs=1e-6)
    assert kl(measured_checkpoints, 50) > 0.1
    assert kl(measured_checkpoints, 7) == pytest.approx(0, abs=1e-6)


def test_beside_a_checkpoint_lies_the_base_alone(
    checkpoints: Evaluate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loaded are two checkpoints, and the base once the first has been asked: the first is gone before the second."""
    beside: list[int] = []
    monkeypatch.setattr(stage, "load_model", counting(beside))
    stage.evaluate(checkpoints, tmp_path, Journal(tmp_path))
    assert beside == [0, 1, 1]


def test_each_checkpoint_leaves_its_records_and_no_metrics_on_this_run(
    evaluated: Path, measured_checkpoints: Path, model: Any, evaluator: Evaluator
) -> None:
    """What trained models score stands on the runs that trained them."""
    result = json.loads((measured_checkpoints / "result.json").read_text())
    files = [f"{kind}/step-{step:06d}" for kind in ("drift", "pass_at") for step in (7, 50)]
    names = ("color", "count", "jigsaw")
    assert result["files"].keys() == {
        *OF_A_RUN,
        *(f"{file}.parquet" for file in files),
        *(f"records/step-{step:06d}/{name}.parquet" for step in (7, 50) for name in names),
    }
    assert result["metrics"] == {}
    found = [
        record
        for name in ("jigsaw", "color", "count")
        for record in read_records(measured_checkpoints / "records" / "step-000050" / f"{name}.parquet")
    ]
    assert measured(found) == pytest.approx(measured(list(evaluator.evaluate(model))), abs=1e-4)
    for name in names:
        ours, theirs = (
            read_records(out / "records" / f"step-{step:06d}" / f"{name}.parquet")
            for out, step in ((measured_checkpoints, 7), (evaluated, 0))
        )
        assert ours == theirs


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
    monkeypatch.setattr("holdfast.evaluation.generate.VALUES", 1)
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
    checkpoints: Evaluate, measured_checkpoints: Path, run_stage: Callable[..., Path], tmp_path: Path
) -> None:
    assert checkpoints.drift is not None
    alone = {"models": checkpoints.models[:1], "benchmarks": (), "pass_at": None}
    sampled = {"drift": checkpoints.drift.model_copy(update={"kind": "sampled"})}
    out = run_stage(checkpoints.model_copy(update={**alone, **sampled}), tmp_path)
    assert 0 < kl(out, 50) != kl(measured_checkpoints, 50)


def test_pass_at_counts_the_right_among_the_most_samples(
    measured_checkpoints: Path, model: Any, schooled: ModelRef, tiny_data: DataRef
) -> None:
    rows = pq.read_table(measured_checkpoints / "pass_at" / "step-000050.parquet").to_pylist()
    questions = read_questions(tiny_data.path / "target-test.parquet")
    assert [row["id"] for row in rows] == [question.id for question in questions]
    assert all(0 <= row["right"] <= 4 for row in rows)
    reader = Reader(load_processor(schooled), BATCH)
    again = right_of(model, reader, pass_at(tiny_data, 4), LIMIT, seed=0)
    assert again == [(row["id"], row["right"]) for row in rows]


@pytest.fixture(scope="module")
def sample_job(schooled: ModelRef, tiny_data: DataRef) -> Callable[..., Sample]:
    def make(source: Rollouts | SelfReasoning) -> Sample:
        questions = FileRef(path=tiny_data.path / "target-train.parquet", digest="tiny")
        models = {"model": schooled, "base": schooled}
        return Sample(source=source, data=tiny_data, questions=questions, limit=LIMIT, batch_size=BATCH, **models)

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
    tight = job.model_copy(update={"limit": 3})
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
    question = evaluator.asked[0].question
    written = "<think> i look </think> <answer> 9 9 </answer>"
    assert with_answer(Drawn(question, 0, written)) == f"<think> i look </think> <answer> {question.answer} </answer>"
    assert with_answer(Drawn(question, 0, "<answer> 1 2 3 4 </answer>")) is None
    assert with_answer(Drawn(question, 0, "<think> </think>")) is None


def test_the_bases_evaluation_leaves_what_later_ones_are_compared_with(
    evaluated: Path, run_stage: Callable[..., Path], tmp_path: Path
) -> None:
    result = json.loads((evaluated / "result.json").read_text())
    records = {f"records/step-000000/{name}.parquet" for name in ("jigsaw", "color", "count")}
    assert result["files"].keys() == {*OF_A_RUN, *records, "drift/step-000000.parquet", REFERENCES}
    [line] = [line for line in read_lines(evaluated / "metrics.jsonl") if "metrics" in line]
    assert line["step"] == 0
    assert {"target/jigsaw/score", "prior/mean/accuracy", "validation/prior/mean/accuracy"} <= line["metrics"].keys()
    job = Evaluate.model_validate_json((evaluated / "job.json").read_text())
    again = json.loads((run_stage(job, tmp_path) / "result.json").read_text())
    of_a_run = dict.fromkeys(OF_A_RUN, "")
    assert again["files"] | of_a_run == result["files"] | of_a_run
    assert again["metrics"] == result["metrics"]


def test_one_more_benchmark_is_asked_alone_and_answered_as_among_the_others(
    evaluated: Path, tiny_model: ModelRef, tiny_data: DataRef, run_stage: Callable[..., Path], tmp_path: Path
) -> None:
    job = evaluate_job(tiny_data, tiny_model, benchmarks=(shards(tiny_data, "count", "prior"),), drift=None)
    out = run_stage(job, tmp_path)
    name = "records/step-000000/count.parquet"
    assert json.loads((out / "result.json").read_text())["files"].keys() == {*OF_A_RUN, name}
    alone, among = (read_records(place / name) for place in (out, evaluated))
    assert [record._replace(logprob=0.0) for record in alone] == [record._replace(logprob=0.0) for record in among]
    assert [record.logprob for record in alone] == pytest.approx([record.logprob for record in among], abs=1e-4)


def test_the_base_is_asked_again_in_other_batches_and_the_answers_that_differ_are_counted(
    tiny_model: ModelRef, tiny_data: DataRef, run_stage: Callable[..., Path], tmp_path: Path
) -> None:
    out = run_stage(evaluate_job(tiny_data, tiny_model, again=3), tmp_path)
    found = json.loads((out / "result.json").read_text())["notes"]["flips"]
    assert found["questions"] == 2 * (6 + 5 + 5)
    assert 0 <= found["answers"] <= 1
    assert 0 <= found["verdicts"] <= 1


def test_flips_are_shares_of_questions(model: Any, evaluator: Evaluator) -> None:
    once: list[Record] = list(evaluator.evaluate(model))[:4]
    again = [once[0]._replace(parsed="another", correct=not once[0].correct), once[1]._replace(parsed="one"), *once[2:]]
    assert flips(once, once) == {"questions": 4, "answers": 0, "verdicts": 0}
    assert flips(once, again) == {"questions": 4, "answers": 0.5, "verdicts": 0.25}
