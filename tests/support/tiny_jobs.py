"""Evaluations of the tiny study's data."""

from collections.abc import Sequence
from typing import Any

from holdfast.config.jobs import Drift, Evaluate, PassAt, Shards
from holdfast.config.refs import DataRef, FileRef, ModelRef, file_digest
from holdfast.data.shards import prior_shard

REFERENCES, LIMIT, BATCH = "references.parquet", 16, 8


def shards(data: DataRef, name: str, role: Any) -> Shards:
    """A benchmark's files."""

    def file(split: str) -> FileRef:
        path = data.path / (f"target-{split}.parquet" if role == "target" else prior_shard(name, split))
        return FileRef(path=path, digest=file_digest(path))

    return Shards(name=name, role=role, test=file("test"), validation=file("validation"))


def benchmarks(data: DataRef) -> tuple[Shards, ...]:
    """The jigsaw, and two that the base should know."""
    return shards(data, "jigsaw", "target"), shards(data, "color", "prior"), shards(data, "count", "prior")


def evaluate_job(
    data: DataRef, base: ModelRef, models: Sequence[ModelRef] = (), references: FileRef | None = None, **more: Any
) -> Evaluate:
    """Of the base, or of some models when its samples are there."""
    asked = benchmarks(data)
    drift = Drift(target=asked[0], prompts=4, references=references)
    given = {"benchmarks": asked, "limit": LIMIT, "validation": 32, "batch_size": BATCH, "drift": drift}
    return Evaluate(models=tuple(models) or (base,), base=base, **{**given, **more})


def pass_at(data: DataRef, *k: int) -> PassAt:
    """At a temperature at which samples differ."""
    return PassAt(target=benchmarks(data)[0], k=k, temperature=2.0)
