"""A stage tried for some steps on its longest samples: whether they fit, how long they take, what the base earns."""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback
from trl import GRPOConfig

from holdfast.config.jobs import Trace, Train, Trial
from holdfast.config.measurement import Influence
from holdfast.config.methods import GRPO, SFT, Answers
from holdfast.config.refs import FileRef
from holdfast.data.shards import Question, read_questions, write_questions
from holdfast.journal import Journal
from holdfast.models.load import device, load_model, load_processor
from holdfast.models.precision import study_dtype
from holdfast.stages.lengths import prompt_lengths
from holdfast.stages.on_policy import rollouts
from holdfast.stages.out_of_memory import STEP, explained
from holdfast.training.arguments import anywhere, length
from holdfast.training.callback import StageCallback
from holdfast.training.stage import build

ASKED = "longest.parquet"
FILLER = " a"
KEPT = 64
"""Longest prompts that are tried."""


def trial(job: Trial, out: Path, journal: Journal) -> dict[str, Any]:
    """Notes: `seconds_a_step`, `peak` (bytes) and, of a reinforced stage, `groups` and `without_variance`.

    Raises:
        UserError: a step does not fit into memory.
    """
    processor = load_processor(job.train.start)
    largest, period = largest_job(job.train, processor, out)
    callback = StageCallback(out, journal, lambda model, step: {}, processor)
    notes: dict[str, Any] = {}
    with explained(STEP):
        if job.train.stage.method == "grpo":
            # First: to ask for TRL's arguments anew takes from a trainer what it knows of the machine.
            notes = variance(job, processor)
        trainer = build(largest, processor, out, callback)
        callback.steps = []
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        clock = Clock()
        trainer.add_callback(clock)
        trainer.train()
    return {**notes, "seconds_a_step": clock.seconds(period), "peak": peak()}


def largest_job(train: Train, processor: Any, out: Path) -> tuple[Train, int]:
    """The training for two periods of its steps on its longest samples, and the steps of a period."""
    stage = train.stage
    config = anywhere(stage, train.limit)
    questions = read_questions(train.questions.path)
    period = length(config, len(questions)).period
    text = longest_completion(train, processor, questions)
    longest = longest_of(processor, questions, KEPT)
    write_questions(out / ASKED, [question._replace(reference=text, teacher=text) for question in longest])
    trainer: dict[str, Any] = {**stage.trainer, "max_steps": 2 * period}
    changes: dict[str, Any] = {"trainer": trainer}
    if isinstance(stage, SFT):
        changes |= {"source": Answers(), "select": None}
    elif isinstance(config, GRPOConfig) and not config.use_vllm:
        given = trainer.get("generation_kwargs") or {}
        trainer["generation_kwargs"] = {**given, "min_new_tokens": config.max_completion_length or train.limit}
    asked = FileRef(path=out / ASKED, digest="")
    tried = stage.model_copy(update=changes)
    return train.model_copy(update={"stage": tried, "questions": asked, "samples": None, "keep_moments": False}), period


def longest_of(processor: Any, questions: list[Question], count: int) -> list[Question]:
    """Those with the longest prompts, the longest first."""
    order = sorted(range(len(questions)), key=[one.tokens for one in prompt_lengths(processor, questions)].__getitem__)
    return [questions[place] for place in order[::-1][:count]]


def longest_completion(train: Train, processor: Any, questions: list[Question]) -> str:
    """Of what the source has; what is sampled first, or comes from a file, may be as long as the limit."""
    stage, tokenizer = train.stage, processor.tokenizer
    if isinstance(stage, SFT) and stage.source.kind in ("self", "rollouts", "own", "file"):
        return FILLER * train.limit
    taught = isinstance(stage, SFT) and stage.source.kind == "teacher"
    texts = {(one.teacher if taught else one.reference) for one in questions}
    return max(sorted(texts), key=lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"]))


def variance(job: Trial, processor: Any) -> dict[str, int]:
    """Of so many groups of the base's rollouts, in how many all are rewarded alike: these teach nothing."""
    train = job.train
    assert isinstance(train.stage, GRPO)
    questions = read_questions(train.questions.path, job.prompts)
    config: Any = anywhere(train.stage, train.limit)
    group: int = config.num_generations
    settings = Influence(samples=job.prompts * group)
    said = rollouts(Trace(seed=job.seed, train=train, data=train.data, kept=(), influence=settings), processor)
    model = load_model(train.start, study_dtype(train), device(train.device))
    advantages = [weight for _, _, weight in said(model, questions, settings.samples)]
    groups = [advantages[start : start + group] for start in range(0, len(advantages), group)]
    return {"groups": len(groups), "without_variance": sum(not any(one) for one in groups)}


class Clock(TrainerCallback):
    """When each step ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.times.append(time.monotonic())

    def seconds(self, period: int) -> float:
        """Of a step, over the last period: the first has what is done once."""
        return (self.times[-1] - self.times[-1 - period]) / period


def peak() -> int:
    """Bytes that were taken at most, on the GPU if there is one, else by this process."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_reserved()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
