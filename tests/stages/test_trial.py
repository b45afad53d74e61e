"""A stage is tried on its longest samples, timed, and asked in how many groups the base earns unlike rewards."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_jobs import BATCH, LIMIT, evaluate_job

from holdfast.config.jobs import AskTrial, TraceTrial, Trial
from holdfast.config.measurement import Influence
from holdfast.config.refs import DataRef, ModelRef
from holdfast.data.shards import read_questions
from holdfast.data.training_set import train_rows
from holdfast.errors import UserError
from holdfast.evaluation.generate import generate
from holdfast.influence.samples import sample_encoder
from holdfast.journal import Journal
from holdfast.models.load import load_model, load_processor
from holdfast.stages import ask_trial as ask_module
from holdfast.stages import trace_trial as trace_module
from holdfast.stages import trial as module
from holdfast.stages.lengths import longest_prompt, prompt_lengths
from holdfast.stages.trial import largest_job

DRAWN = {"max_steps": 100, "per_device_train_batch_size": 4, "num_generations": 4, "max_completion_length": 8}


def tried(job: Trial | TraceTrial, run_stage: Callable[..., Path], out: Path) -> dict[str, Any]:
    notes = json.loads((run_stage(job, out) / "result.json").read_text())
    assert not notes["checkpoints"]
    assert not list(out.rglob("*.safetensors"))
    return notes["notes"]


@pytest.mark.slow
def test_a_supervised_stage_is_timed_and_measured(train_job: Any, run_stage: Any, tmp_path: Path) -> None:
    stage = {"method": "sft", "source": "self", "trainer": {"max_steps": 1000, "per_device_train_batch_size": 4}}
    found = tried(Trial(train=train_job(stage)), run_stage, tmp_path)
    assert 0 < found["seconds_a_step"] < 30
    assert found["peak"] > 1e8
    assert "groups" not in found


@pytest.mark.slow
def test_groups_that_are_all_rewarded_alike_are_counted(
    train_job: Any, run_stage: Any, schooled: ModelRef, tmp_path: Path
) -> None:
    """Of a reward for the length, which differs, and of one that nobody earns."""
    stage = {"method": "grpo", "trainer": DRAWN, "rewards": {"accuracy": 1.0}}
    job = train_job(stage, start=schooled)
    found = tried(Trial(train=job, prompts=8), run_stage, tmp_path / "accuracy")
    assert found["groups"] == 8
    assert 0 < found["without_variance"] <= 8
    never = {**stage, "rewards": {"own": {"function": "never_rewards:never"}}}
    again = tried(Trial(train=train_job(never, start=schooled), prompts=8), run_stage, tmp_path / "never")
    assert again["without_variance"] == 8


def test_the_longest_prompts_are_tried_with_the_longest_completion(
    train_job: Any, processor: Any, tiny_data: DataRef, tmp_path: Path
) -> None:
    stage = {"method": "sft", "source": "teacher", "trainer": {"max_steps": 1000, "per_device_train_batch_size": 4}}
    job, period = largest_job(train_job(stage), processor, tmp_path)
    assert period == 1
    assert job.stage.trainer["max_steps"] == 2
    questions = read_questions(tiny_data.path / "target-train.parquet")
    lengths = [one.tokens for one in prompt_lengths(processor, questions)]
    rows = train_rows(job)
    assert [one.tokens for one in prompt_lengths(processor, [row.question for row in rows])] == sorted(lengths)[::-1]
    longest = max(
        (question.teacher for question in questions), key=lambda text: len(processor.tokenizer(text).input_ids)
    )
    assert {len(processor.tokenizer(row.completion).input_ids) for row in rows} == {
        len(processor.tokenizer(longest).input_ids)
    }


def test_what_is_sampled_is_tried_at_its_limit(train_job: Any, processor: Any, tmp_path: Path) -> None:
    stage = {"method": "grpo", "trainer": {**DRAWN, "num_iterations": 2}}
    job, period = largest_job(train_job(stage), processor, tmp_path)
    assert job.stage.trainer["generation_kwargs"] == {"min_new_tokens": 8}
    assert (period, job.stage.trainer["max_steps"]) == (2, 4)


@pytest.mark.parametrize("stage", [{"method": "sft", "source": "answers"}, {"method": "grpo", "trainer": DRAWN}])
def test_influence_is_tried_on_the_longest_samples_and_questions(
    stage: dict[str, Any], train_job: Any, tiny_data: DataRef, run_stage: Any, tmp_path: Path
) -> None:
    settings = Influence(samples=6, batch_size=4, memory_gb=0.001)
    job = TraceTrial(
        train=train_job({"lora": {"r": 2, "target_modules": "all-linear"}, **stage}), data=tiny_data, influence=settings
    )
    encoder = sample_encoder(job.train, settings)
    lengths = prompt_lengths(encoder.processor, read_questions(job.train.questions.path))
    samples = trace_module._samples(job, encoder)
    assert [len(one.encoded["input_ids"]) for one in samples] == sorted(one.tokens for one in lengths)[-6:][::-1]
    assert stage["method"] == "sft" or min(len(one.completion) for one in samples) >= DRAWN["max_completion_length"]
    for path in tiny_data.path.glob("*validation*.parquet"):
        asked = read_questions(path)
        [longest, _] = trace_module._questions(job, encoder)[asked[0].benchmark]
        assert len(longest.encoded["input_ids"]) == longest_prompt(encoder.processor, asked).tokens
    found = tried(job, run_stage, tmp_path)
    assert found["samples"] == 6
    assert min(found["seconds_samples"], found["seconds_questions"]) > 0
    assert found["peak"] > 1e8


def test_influence_that_does_not_fit_is_one_sentence(
    train_job: Any, tiny_data: DataRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace_module, "verify", full)
    stage = {"method": "sft", "source": "answers"}
    job = TraceTrial(train=train_job(stage), data=tiny_data, influence=Influence(samples=2))
    with pytest.raises(UserError, match=r"a batch of samples does not fit .* lower influence\.batch_tokens"):
        trace_module.trace_trial(job)


@pytest.mark.parametrize("kind", ["exact", "sampled"])
def test_an_evaluation_is_tried_on_its_longest_questions_at_the_limit_beside_the_base(
    kind: str, tiny_data: DataRef, schooled: ModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 6 + 5 + 5 test questions and as many of validation, 8 at a time; the model has learned to end its answers."""
    wrote, loaded = [], []

    def writing(model: Any, reader: Any, prompts: Any, sampling: Any) -> list[list[list[int]]]:
        found = generate(model, reader, prompts, sampling)
        wrote.extend((len(prompt["input_ids"]), len(ids)) for prompt, [ids] in zip(prompts, found, strict=True))
        return found

    monkeypatch.setattr(ask_module, "generate", writing)
    monkeypatch.setattr(ask_module, "load_model", lambda *given: loaded.append(given) or load_model(*given))
    asked = evaluate_job(tiny_data, schooled)
    assert asked.drift is not None
    drift = asked.drift.model_copy(update={"kind": kind})
    found = ask_module.ask_trial(AskTrial(evaluation=asked.model_copy(update={"drift": drift})))
    lengths = [
        one.tokens
        for path in tiny_data.path.glob("*.parquet")
        if "train" not in path.name
        for one in prompt_lengths(load_processor(schooled), read_questions(path))
    ]
    first, *timed = wrote
    assert first[1] <= 2, "what is done once is done before"
    assert [prompt for prompt, _ in timed] == sorted(lengths)[::-1][:BATCH]
    assert {written for _, written in timed} == {LIMIT}
    assert len(loaded) == (2 if kind == "exact" else 1)
    assert [found[name] for name in ("questions", "prompts", "asked", "validated")] == [8, 4, 32, 16]
    assert min(found[f"seconds_{name}"] for name in ("reading", "writing", "comparing")) > 0
    assert found["peak"] > 1e8


class Starting:
    """As vLLM, which starts when it is first asked, in an hour of a clock of its own, and then writes in a second."""

    def __init__(self) -> None:
        self.now, self.wrote = 0.0, []

    def generate(self, model: Any, reader: Any, prompts: Any, sampling: Any) -> list[list[list[int]]]:
        assert not sampling.settings, "vLLM has other names"
        self.now += 1 if self.wrote else 3600
        self.wrote.append(len(prompts))
        return [[[5, 6, 7]] for _ in prompts]


def test_with_vllm_its_start_is_nobodys_time_and_transformers_is_timed_beside_it(
    tiny_data: DataRef, schooled: ModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All 32 questions are given to vLLM, which takes a second; before it has its share of the card, transformers
    writes a batch of 8, for 10 s."""
    decoder, lengths = Starting(), []

    def writing(model: Any, reader: Any, prompts: Any, sampling: Any) -> list[list[list[int]]]:
        found = generate(model, reader, prompts, sampling)
        if reader.decoder is None:
            assert not decoder.wrote
            decoder.now += 10
            lengths.extend(len(ids) for [ids] in found)
        return found

    monkeypatch.setattr(ask_module, "decoder_of", lambda *_: decoder)
    monkeypatch.setattr(ask_module, "generate", writing)
    monkeypatch.setattr(ask_module, "_now", lambda: decoder.now)
    found = ask_module.ask_trial(AskTrial(evaluation=evaluate_job(tiny_data, schooled)))
    assert decoder.wrote == [1, 32]
    assert [found["questions"], found["seconds_writing"]] == [32, 1]
    assert found["along"] == {"questions": BATCH, "seconds_reading": 0, "seconds_writing": 10}
    assert lengths[1:] == [LIMIT] * BATCH


def test_an_evaluation_that_does_not_fit_is_one_sentence(
    tiny_data: DataRef, tiny_model: ModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ask_module, "score", full)
    with pytest.raises(UserError, match=r"evaluation: a batch of questions .* lower evaluation\.batch_size"):
        ask_module.ask_trial(AskTrial(evaluation=evaluate_job(tiny_data, tiny_model)))


def full(*_: Any) -> None:
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 900000000000 bytes.")


def test_a_step_that_does_not_fit_is_one_sentence(
    train_job: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "build", full)
    stage = {"method": "sft", "source": "answers", "trainer": {"max_steps": 2}}
    with pytest.raises(UserError, match=r"a step of the largest batch does not fit .* lower per_device"):
        module.trial(Trial(train=train_job(stage)), tmp_path, Journal(tmp_path))
