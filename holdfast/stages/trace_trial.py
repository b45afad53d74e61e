"""Influence tried where a stage begins, on its longest samples: whether a batch fits, and how long it takes."""

from __future__ import annotations

import time
from typing import Any

import torch

from holdfast.config.jobs import TraceTrial
from holdfast.config.methods import SFT
from holdfast.data.shards import read_questions, shard_paths
from holdfast.influence import checkpoints
from holdfast.influence.benchmark_gradients import BenchmarkQuestions, benchmark_gradients
from holdfast.influence.checkpoint_influence import Targets, measure_part, measured_in_parts, verify
from holdfast.influence.engine.gradients import Gradient, selection
from holdfast.influence.parts import measuring_in, parts_of
from holdfast.influence.samples import Sample, SampleEncoder, sample_encoder
from holdfast.models.image_feature_cache import cached_image_features
from holdfast.stages.out_of_memory import SAMPLES, explained
from holdfast.stages.trial import FILLER, longest_completion, longest_of, peak
from holdfast.training.arguments import anywhere

HALVES = 2
"""Questions of a benchmark that are tried, one for each half."""


def trace_trial(job: TraceTrial) -> dict[str, Any]:
    """Notes: `samples`, as many as a checkpoint has, and `seconds_samples` with these; `questions` of each benchmark,
    fewer than it has, and `seconds_questions`; `peak` (bytes).

    Raises:
        UserError: a batch does not fit into memory.
    """
    settings, train = job.influence, job.train
    encoder = sample_encoder(train, settings)
    samples = _samples(job, encoder)
    held = checkpoints.CPU if settings.memory_gb is not None else None
    questions = BenchmarkQuestions(_questions(job, encoder), encoder, settings.probes, held)
    asking = 0.0
    with explained(SAMPLES):
        model = checkpoints.computing(checkpoints.load(train, None, settings), train, settings).model
        began = time.monotonic()
        with cached_image_features(model, {}):
            for names in parts_of(model, settings, len(questions.samples)):
                with measuring_in(model, names):
                    asking += _measure(model, samples, questions, job.seed)
        seconds = time.monotonic() - began
    return {
        "samples": len(samples),
        "questions": HALVES,
        "seconds_samples": seconds - asking,
        "seconds_questions": asking,
        "peak": peak(),
    }


def _measure(model: Any, samples: list[Sample], questions: BenchmarkQuestions, seed: int) -> float:
    """Seconds of the questions' gradients."""
    encoder = questions.encoder
    verify(model, samples, encoder)
    began = time.monotonic()
    found = benchmark_gradients(model, questions, seed)
    seconds = time.monotonic() - began
    targets = Targets(found, _no_scale(model), questions.held)
    measured_in_parts(samples, lambda given: [measure_part(model, given, encoder, targets, seed)])
    return seconds


def _samples(job: TraceTrial, encoder: SampleEncoder) -> list[Sample]:
    """As many as a checkpoint has; what is sampled may be as long as its limit."""
    train, processor = job.train, encoder.processor
    asked = read_questions(train.questions.path)
    if isinstance(train.stage, SFT):
        text = longest_completion(train, processor, asked)
    else:
        config: Any = anywhere(train.stage, train.limit)
        text = FILLER * (config.max_completion_length or train.limit)
    longest = longest_of(processor, asked, job.influence.samples)
    return encoder.samples([(question, text, 1.0) for question in longest])


def _questions(job: TraceTrial, encoder: SampleEncoder) -> dict[str, list[Sample]]:
    """The longest of every benchmark."""
    found = {}
    for path in shard_paths(job.data.path, "validation"):
        longest = longest_of(encoder.processor, read_questions(path), HALVES)
        found[longest[0].benchmark] = encoder.samples([(question, question.reference, 1.0) for question in longest])
    return found


def _no_scale(model: Any) -> Gradient:
    """In place of Adam's moments, which are not there yet: so its view of every benchmark is there."""
    return {name: torch.ones(value.shape) for name, value in selection(model).items()}
