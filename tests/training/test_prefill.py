"""A target's answers that the prompt begins: asked, learned, sampled, rewarded and graded from there."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tiny_jobs import shards
from trainings import trained

from holdfast.benchmarks.dataset import make_data
from holdfast.benchmarks.grading.answer import formatted
from holdfast.config.images import World
from holdfast.config.jobs import Evaluate, MakeData, Sample, Train
from holdfast.config.methods import TeacherFile
from holdfast.config.refs import DataRef, FileRef, ModelRef
from holdfast.config.targets import Counting, Jigsaw
from holdfast.data.chat import begun, rendered, rest, whole
from holdfast.data.shards import Question, read_questions
from holdfast.data.training_set import TrainingRow
from holdfast.errors import UserError
from holdfast.evaluation.records import read_records
from holdfast.evaluation.teaching import graded
from holdfast.influence.replay.tokens import kinds
from holdfast.influence.samples import SampleEncoder, supervised_completions
from holdfast.journal import Journal
from holdfast.models.encode import encode
from holdfast.models.load import load_processor
from holdfast.training.callback import StageCallback
from holdfast.training.sft import Collator
from holdfast.training.stage import build

PREFILL = "Let me see.\n<think>"
ONE = Question("a#0", "a", (), "?", "1 2", "", "jigsaw", "jigsaw")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataRef:
    path = tmp_path_factory.mktemp("prefilled")
    target = Jigsaw(train=24, validation=2, test=4, prefill=PREFILL)
    make_data(MakeData(images=World(), target=target, prior=[{"benchmark": "color", "questions": 2}]), path)
    return DataRef(path=path, digest="prefilled")


@pytest.fixture
def job(data: DataRef, train_job: Callable[..., Train]) -> Callable[..., Train]:
    asked = FileRef(path=data.path / "target-train.parquet", digest="prefilled")

    def make(stage: dict[str, Any], *start: ModelRef) -> Train:
        return train_job(stage, *start, keep=2).model_copy(update={"data": data, "questions": asked})

    return make


@given(st.sampled_from(["", "Well,", "<think>", "Well.\n<think>\n", "<answer> ", "<think> First"]), st.text())
def test_what_was_written_after_a_prefill_comes_out_of_the_whole_again(prefill: str, written: str) -> None:
    question = ONE._replace(prefill=prefill)
    assert rest(question, whole(question, written)) == written


@pytest.mark.parametrize(
    ("prefill", "opened", "left"),
    [
        ("", "", "<think> a </think>"),
        ("Let me see.", "", "<think> a </think>"),
        ("Let me see.\n<think>", "<think>", " a </think>"),
        ("<think>\n", "<think>\n", "a </think>"),
        ("<answer>", "<answer>", "<think> a </think>"),
    ],
)
def test_a_completion_goes_on_where_the_prefill_ends(prefill: str, opened: str, left: str) -> None:
    question = ONE._replace(prefill=prefill)
    assert begun(question) == opened
    assert rest(question, "<think> a </think>") == left


def test_the_bare_answer_ends_the_reasoning_that_the_prefill_began(data: DataRef) -> None:
    for question in read_questions(data.path / "target-train.parquet"):
        assert rest(question, question.reference) == f" </think> <answer> {question.answer} </answer>"
        assert question.teacher.endswith(f"</think> <answer> {question.answer} </answer>")
        assert formatted(question.reference, thinking=True)


@pytest.mark.parametrize("source", ["answers", "teacher"])
def test_supervised_training_learns_what_follows_the_prefill(
    source: str, data: DataRef, job: Callable[..., Train], processor: Any
) -> None:
    [question, *_] = read_questions(data.path / "target-train.parquet")
    completion = question.reference if source == "answers" else question.teacher
    batch = Collator(processor)([{"row": TrainingRow(question, completion)}])
    [ids], [labels] = batch["input_ids"], batch["labels"]
    end = processor.tokenizer.eos_token
    assert processor.tokenizer.decode(labels[labels != -100]) == completion.removeprefix("<think>") + end
    assert processor.tokenizer.decode(ids).endswith(PREFILL + completion.removeprefix("<think>") + end)
    stage = {"method": "sft", "source": source, "trainer": {"max_steps": 1, "per_device_train_batch_size": 4}}
    [sample, *_] = SampleEncoder(processor, 4).samples(supervised_completions(job(stage), 1))
    assert sample.completion == labels[labels != -100].tolist()
    assert sample.text == completion


def test_rollouts_go_on_from_the_prefill_and_are_rewarded_as_a_whole(
    data: DataRef, job: Callable[..., Train], tmp_path: Path
) -> None:
    given = {"max_steps": 2, "per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 8}
    stage = job({"method": "grpo", "rewards": {"score": 1.0, "format": 1.0}, "trainer": given})
    processor = load_processor(stage.start)
    callback = StageCallback(tmp_path, Journal(tmp_path), lambda *_: {}, processor)
    trainer: Any = build(stage, processor, tmp_path, callback)
    seen: list[str] = []
    [first, *others] = trainer.reward_funcs

    def spied(completions: Any, **columns: Any) -> list[float]:
        seen.extend(one[0]["content"] for one in completions)
        return first(completions=completions, **columns)

    trainer.reward_funcs = [spied, *others]
    rows = next(iter(trainer.get_train_dataloader()))
    batch = trainer._generate_and_score_completions(rows)
    asked = {question.id: question for question in read_questions(data.path / "target-train.parquet")}
    for place, row in enumerate(rows):
        [expected] = encode(processor, [asked[row["id"]]])
        prompt = batch["prompt_ids"][place][batch["prompt_mask"][place].bool()]
        assert prompt.tolist() == expected["input_ids"].tolist()
        assert rendered(processor, asked[row["id"]]).endswith(PREFILL)
        written = batch["completion_ids"][place][batch["completion_mask"][place].bool()]
        assert seen[place] == "<think>" + processor.tokenizer.decode(written, skip_special_tokens=True)


SAMPLED = {"max_steps": 1, "per_device_train_batch_size": 8, "max_completion_length": 12}


@pytest.mark.parametrize(
    "stage",
    [
        {"method": "grpo", "trainer": {**SAMPLED, "num_generations": 4}},
        {"method": "distill", "teacher": {"kind": "demonstration"}, "trainer": SAMPLED},
    ],
    ids=["grpo", "distill"],
)
def test_a_method_that_samples_learns_from_the_prefill_on(
    stage: dict[str, Any], job: Callable[..., Train], tmp_path: Path
) -> None:
    assert all(torch.isfinite(value).all() for value in trained(job(stage), tmp_path / "stage").values())


def test_answers_are_graded_with_their_beginning(
    data: DataRef, schooled: ModelRef, run_stage: Any, tmp_path: Path
) -> None:
    asked = (shards(data, "jigsaw", "target"),)
    job = Evaluate(models=(schooled,), base=schooled, benchmarks=asked, limit=12, validation=2, batch_size=4)
    for record in read_records(run_stage(job, tmp_path / "out") / "records" / "step-000050" / "jigsaw.parquet"):
        assert record.completion.startswith("<think>")
        assert record.logprob < 0


@pytest.mark.slow
def test_samples_go_on_from_the_prefill_and_are_kept_as_a_whole(
    data: DataRef, job: Callable[..., Train], run_stage: Any, tmp_path: Path
) -> None:
    """A model that was taught so closes the tag that it did not open."""
    trainer = {"max_steps": 60, "per_device_train_batch_size": 24, "learning_rate": 1e-2}
    stage = job({"method": "sft", "source": "answers", "freeze": [], "trainer": trainer})
    out = run_stage(stage, tmp_path / "taught")
    [kept, *_] = sorted((out / "checkpoints").glob("step-*"))[-1:]
    model = ModelRef(path=str(kept), digest="taught", step=60)
    given: dict[str, Any] = {"model": model, "base": model, "data": data, "questions": stage.questions, "limit": 16}
    sample = Sample(source={"kind": "rollouts", "arm": "a", "keep": "all"}, batch_size=24, **given)
    drawn = pq.read_table(run_stage(sample, tmp_path / "sampled") / "samples.parquet").to_pylist()
    assert all(row["completion"].startswith("<think>") for row in drawn)
    assert sum(row["format"] for row in drawn) > len(drawn) / 2


def test_tokens_after_an_opened_tag_are_of_what_it_opened() -> None:
    pieces = [" 4", "</answer>", "<end>"]
    assert kinds(pieces, [False, False, True], "<answer>") == ["answer", "format", "end"]
    assert kinds(pieces, [False, False, True]) == ["reasoning", "format", "end"]


@pytest.mark.parametrize("target", [Jigsaw, partial(Counting, benchmark="counting")])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prefill": "<answer>"}, "with `thinking: true` an answer begins with <think>"),
        ({"prefill": "<think> </think>"}, "open that alone, or no tag"),
        ({"prefill": "<think>", "thinking": False}, "with `thinking: false` an answer begins with <answer>"),
    ],
)
def test_a_prefill_that_opens_another_tag_than_was_asked_for_is_refused(
    target: Any, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        target(**given)


def test_a_teachers_file_that_begins_otherwise_is_refused_by_its_row(data: DataRef, tmp_path: Path) -> None:
    [question, other, *_] = read_questions(data.path / "target-train.parquet")
    file = tmp_path / "taught.jsonl"
    rows = [(question.id, question.teacher), (other.id, f"<answer> {other.answer} </answer>")]
    file.write_text("".join(json.dumps({"id": name, "completion": text}) + "\n" for name, text in rows))
    with pytest.raises(UserError, match=r"row 2: completion lacks the tag that target\.prefill opens"):
        graded(TeacherFile(kind="file", path=file), file, [question, other])
