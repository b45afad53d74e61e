"""The base before anything is trained, and every trained model against it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from holdfast.config.jobs import Evaluate, Result, Train
from holdfast.evaluation import drift
from holdfast.evaluation.evaluator import Evaluator
from holdfast.evaluation.forgetting import forgetting
from holdfast.journal import Journal, read_lines
from holdfast.models.image_feature_cache import ImageFeatures, cached_image_features
from holdfast.models.load import device, load_model, load_processor
from holdfast.models.precision import base_dtype, computing_in, study_dtype

DRIFT = "drift.parquet"


def evaluate(job: Evaluate, out: Path, journal: Journal) -> None:
    """Measure the base and leave what later models are compared with: its metrics, and its samples in drift.parquet."""
    journal.progress(0, 3)
    evaluator = Evaluator(job.data, job.evaluation, load_processor(job.model))
    model = load_model(job.model, base_dtype(job.dtype, job.model), device(job.device))
    measured = evaluator.evaluate(model, records_path(out, 0))
    journal.progress(1, 3, prior=measured["prior/mean/accuracy"])
    references = evaluator.sample_references(model, job.seed)
    drift.write_references(out / DRIFT, references)
    journal.progress(2, 3, prior=measured["prior/mean/accuracy"])
    measured["kl/target"] = evaluator.drift(drift.Pair(model, model), references, drift_path(out, 0))
    measured |= evaluator.pass_at(model, job.seed)
    journal.log(0, measured)


def begin(job: Train, journal: Journal) -> None:
    """Tell what the base scored as step 0 of a training that starts from it, so that its curves begin there.

    An attempt that was interrupted has told it already; a later stage starts from another model.
    """
    evaluated = Evaluate.model_validate_json((job.reference.path.parent / "job.json").read_text())
    told = any(line.get("step") == 0 for line in read_lines(journal.path))
    if evaluated.model.digest == job.start.digest and not told:
        base = _base(job)
        journal.log(0, base | forgetting(base, base))


def measurement(job: Train, out: Path, processor: Any) -> Callable[[Any, int], dict[str, float]]:
    """What a training calls at a step: measures the model as it is and compares it with the base."""
    evaluator = Evaluator(job.data, job.evaluation, processor)
    references = drift.read_references(job.reference.path)
    images: ImageFeatures = {}
    base = _base(job)
    exact = job.evaluation.drift == "exact"
    # Beside the model that learns only while they are compared.
    origin = load_model(job.base or job.start, job.dtype, torch.device("cpu")) if exact else None
    dtype = study_dtype(job)

    def measure(model: Any, step: int) -> dict[str, float]:
        with computing_in(dtype, model), cached_image_features(model, images):
            measured = evaluator.evaluate(model, records_path(out, step))
            measured |= evaluator.pass_at(model, job.seed)
            with _moved(origin, model.device):
                measured["kl/target"] = evaluator.drift(drift.Pair(origin, model), references, drift_path(out, step))
        return measured | forgetting(base, measured)

    return measure


@contextmanager
def _moved(model: Any, where: torch.device) -> Iterator[None]:
    """A model of the main memory, if there is one, on another device for a while."""
    if model is None or where.type == "cpu":
        yield
        return
    model.to(where)
    yield
    model.to("cpu")


def _base(job: Train) -> dict[str, float]:
    """What the base scored."""
    return Result.model_validate_json((job.reference.path.parent / "result.json").read_text()).metrics


def records_path(out: Path, step: int) -> Path:
    """Where the records of a step lie."""
    return out / "evaluations" / f"step-{step:06d}.parquet"


def drift_path(out: Path, step: int) -> Path:
    """Where each prompt's divergence from the base at a step lies."""
    return out / "drift" / f"step-{step:06d}.parquet"
