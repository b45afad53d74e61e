"""The influence at one checkpoint: what of it survives samples and benchmarks that are not finite."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from holdfast.data.shards import Question
from holdfast.errors import UserError
from holdfast.influence import checkpoint_influence
from holdfast.influence.benchmark_gradients import BenchmarkQuestions, benchmark_gradients
from holdfast.influence.checkpoint_influence import CheckpointInfluence, Targets, measure_checkpoint, verify
from holdfast.influence.engine.gradients import log_likelihood
from holdfast.influence.samples import Sample, SampleEncoder
from holdfast.models.encode import TeacherForced

COMPLETIONS = ("red", "blue", "green green")


@pytest.fixture
def encoder(processor: Any) -> SampleEncoder:
    return SampleEncoder(processor, 2)


@pytest.fixture
def samples(encoder: SampleEncoder) -> list[Sample]:
    questions = [Question(str(place), "", (), f"what is {place}?", "", "", "", "") for place in range(3)]
    return encoder.samples([(question, text, 1.0) for question, text in zip(questions, COMPLETIONS, strict=True)])


def measured(model: Any, samples: list[Sample], questions: BenchmarkQuestions) -> CheckpointInfluence:
    targets = Targets(benchmark_gradients(model, questions, 0), None)
    return measure_checkpoint(model, samples, questions.encoder, targets, 0)


def spoil(monkeypatch: pytest.MonkeyPatch, sample: Sample) -> None:
    """Make a sample's likelihood infinitely steep, whatever batch it comes in."""

    def steep(logits: Tensor, batch: TeacherForced) -> Tensor:
        own = torch.tensor(sample.completion)
        rows = [torch.equal(row[mask], own) for row, mask in zip(batch.targets, batch.mask, strict=True)]
        return log_likelihood(logits, batch) * torch.where(torch.tensor(rows), torch.inf, 1.0)

    monkeypatch.setattr("holdfast.influence.engine.likelihood.log_likelihood", steep)
    monkeypatch.setattr(checkpoint_influence, "log_likelihood", steep)


def test_a_sample_without_a_finite_gradient_is_named_and_the_others_are_measured(
    vision_model: Any, encoder: SampleEncoder, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = BenchmarkQuestions({"jigsaw": samples[:2], "color": samples[:2]}, encoder, 1)
    whole = measured(vision_model, samples, questions)
    spoil(monkeypatch, samples[2])
    found = measured(vision_model, samples, questions)
    assert found.broken == ("2/2",)
    assert not whole.broken
    assert [sample.id for sample in found.samples] == ["0/0", "1/1"]
    assert list(found.sample_columns()) == ["0/0", "1/1"]
    assert np.allclose(found.norms2, whole.norms2[:2])
    own = measured(vision_model, samples[:2], questions)
    assert found.source.sum_norm2 == own.source.sum_norm2
    # Rates divide by a dot product, and debiased cosines by the product of two halves, which may lie below 0.
    ratios = ("exchange", "cosine_debiased")
    assert all(np.isfinite(value) for name, value in found.measures("jigsaw").items() if not name.endswith(ratios))


def test_the_dots_with_the_samples_own_sum_add_up_to_its_squared_length(
    vision_model: Any, encoder: SampleEncoder, samples: list[Sample]
) -> None:
    """Over batches, and with weights of both signs; the sum is autograd's and the dots are the engine's."""
    weighted = [sample._replace(weight=weight) for sample, weight in zip(samples, (1.0, -0.5, 0.0), strict=True)]
    found = measured(vision_model, weighted, BenchmarkQuestions({"color": samples[:2]}, encoder, 0))
    dots = found.dots[:, found.targets.index("sum")].sum(-1)
    assert found.source.weights @ dots == pytest.approx(found.source.sum_norm2, rel=1e-4)
    alone = measured(vision_model, weighted[:1], BenchmarkQuestions({"color": samples[:2]}, encoder, 0))
    assert alone.dots[0, alone.targets.index("sum")].sum() == pytest.approx(found.norms2[0].sum(), rel=1e-4)


def test_the_kernel_of_two_tokens_is_that_of_the_sequences_over_their_lengths(
    vision_model: Any, encoder: SampleEncoder, samples: list[Sample]
) -> None:
    found = measured(vision_model, samples[:1], BenchmarkQuestions({"color": samples[1:]}, encoder, 1)).kernels["color"]
    lengths = [len(sample.completion) for sample in samples]
    pairs = lengths[0] * (lengths[1] + lengths[2]) / 2
    assert found["kernel_per_token"] == pytest.approx(found["kernel"] / pairs**0.5)


def test_the_kernel_and_lbk_are_means_of_what_is_kept_of_each_sample(
    vision_model: Any, encoder: SampleEncoder, samples: list[Sample]
) -> None:
    found = measured(vision_model, samples, BenchmarkQuestions({"color": samples[:2]}, encoder, 2))
    own = [found.sample_columns()[sample.id] for sample in samples]
    squares = np.array([[row[f"kernel2/color/{probe}"] for probe in range(4)] for row in own])
    assert found.kernels["color"]["kernel"] == pytest.approx(squares.mean() ** 0.5)
    assert len(set(squares.flatten())) == 12
    dots, spread = found.benchmarks["color"].dots, found.benchmarks["color"].spread
    lengths = [len(sample.completion) for sample in samples]
    explained = [
        dot**2 / (spread * length * row["certainty"]) for dot, length, row in zip(dots, lengths, own, strict=True)
    ]
    assert found.measures("color")["color/lbk"] == pytest.approx(np.mean(explained))


def test_a_benchmark_without_a_finite_gradient_is_refused_by_name(
    vision_model: Any, encoder: SampleEncoder, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, samples[2])
    questions = BenchmarkQuestions({"jigsaw": samples[:2], "color": samples[1:]}, encoder, 0)
    with pytest.raises(UserError, match="benchmark color is not finite"):
        measured(vision_model, samples[:2], questions)


def test_samples_that_are_all_broken_are_refused_by_name(
    vision_model: Any, encoder: SampleEncoder, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, samples[2])
    with pytest.raises(UserError, match="no sample has a finite gradient, beginning with 2/2"):
        measured(vision_model, samples[2:], BenchmarkQuestions({"jigsaw": samples[:2]}, encoder, 0))


def test_verification_leaves_broken_samples_out(
    vision_model: Any, encoder: SampleEncoder, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    verify(vision_model, samples, encoder)
    monkeypatch.setattr(checkpoint_influence.Engine, "measure", broken_first(checkpoint_influence.Engine.measure))
    verify(vision_model, samples, encoder)


def broken_first(measure: Any) -> Any:
    """The first sample of a batch of two is not finite."""

    def measured(self: Any, batch: TeacherForced, *given: Any) -> Any:
        found = measure(self, batch, *given)
        if len(found.loglik) == 2:
            found.loglik[0] = torch.nan
        return found

    return measured
