"""Runs as an archive carries them: everything that MLflow knows of a run, by values that mean the same elsewhere.

Ids of runs are the store's own, and a new store gives new ones. Metrics name the step of their checkpoint instead of
the logged model's id.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import ConfigDict, Field

from holdfast.config.base import Config
from holdfast.config.results import Checkpoint
from tasks.run_owner import OWNER_TAGS
from tasks.tracking import Point, Store

IMPORT = "holdfast.import"
"""Tag of an imported run: the digest of its archive's manifest."""
REVEALING = frozenset({"holdfast.kind", "holdfast.stage_key", "holdfast.models"})
"""Tags by which studies and stages are found; a run that is not whole has none of them."""
LEFT_OUT = frozenset({*OWNER_TAGS, IMPORT, "mlflow.runName", "mlflow.user", "prefect.flow_run_id"})
"""Tags about the process and the person of that time, and what MLflow writes itself."""

RunId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class Logged(NamedTuple):
    """A metric's value."""

    name: str
    value: float
    step: int
    time: int
    """Milliseconds since the epoch."""
    checkpoint: int | None
    """Step of the checkpoint that it was measured on, if it was on one."""
    data: str
    """Name and digest of the data set, in one word; empty where the metric names none."""


class Alias(Config):
    """A name that the model registry gives a checkpoint."""

    model: str
    alias: str
    step: int


class ExportedRun(Config):
    """A finished run."""

    model_config = ConfigDict(ser_json_inf_nan="strings")

    run_id: RunId
    """In the store that it comes from."""
    experiment: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
    name: str
    status: Literal["FINISHED", "FAILED", "KILLED"]
    started: int
    ended: int
    """Milliseconds since the epoch."""
    tags: dict[str, str]
    params: dict[str, str]
    metrics: tuple[Logged, ...]
    models: tuple[Checkpoint, ...]
    data: tuple[tuple[str, str], ...]
    """Name and digest of the data sets that it read."""
    aliases: tuple[Alias, ...]


class ExportedStudy(Config):
    """All runs of a study or a sweep; a run stands behind those that it is above of, the study's own is the last."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
    code: str
    """Digest of the sources that it was exported with."""
    runs: Annotated[tuple[ExportedRun, ...], Field(min_length=1)]


def described(store: Store, run: Any, aliases: Mapping[str, Mapping[str, tuple[str, int]]]) -> ExportedRun:
    """A run of the store; `aliases` has the registry's, by model and name."""
    run_id, models = run.info.run_id, store.models.of(run)
    return ExportedRun(
        run_id=run_id,
        experiment=store.client.get_experiment(run.info.experiment_id).name,
        name=run.info.run_name,
        status=run.info.status,
        started=run.info.start_time,
        ended=run.info.end_time,
        tags={name: value for name, value in run.data.tags.items() if name not in LEFT_OUT},
        params=run.data.params,
        metrics=tuple(_metrics(store, run, models)),
        models=tuple(map(_checkpoint, models)),
        data=tuple((one.dataset.name, one.dataset.digest) for one in run.inputs.dataset_inputs),
        aliases=tuple(
            Alias(model=model, alias=alias, step=step)
            for model, named in aliases.items()
            for alias, (owner, step) in named.items()
            if owner == run_id
        ),
    )


def _checkpoint(model: Any) -> Checkpoint:
    path = model.tags["holdfast.artifact"].removeprefix(f"runs:/{model.source_run_id}/")
    return Checkpoint(step=int(model.tags["holdfast.step"]), path=path, digest=model.tags["holdfast.digest"])


def _metrics(store: Store, run: Any, models: Iterable[Any]) -> Iterator[Logged]:
    """A metric's history does not say which model it was measured on; the models do."""
    measured = {(one.key, one.step, one.timestamp): (model, one) for model in models for one in model.metrics or ()}
    for name in run.data.metrics:
        for one in store.client.get_metric_history(run.info.run_id, name):
            model, on_model = measured.get((name, one.step, one.timestamp), (None, None))
            data = f"{on_model.dataset_name} {on_model.dataset_digest}" if on_model and on_model.dataset_name else ""
            checkpoint = _checkpoint(model).step if model else None
            yield Logged(name, one.value, one.step, one.timestamp, checkpoint, data)


def log_described(store: Store, run_id: str, run: ExportedRun) -> None:
    """Log what a run of another store had on a run of this one, all but its files and what reveals it."""
    store.tag(run_id, {name: value for name, value in run.tags.items() if name not in REVEALING | LEFT_OUT})
    store.params(run_id, run.params)
    models = {checkpoint.step: store.models.keep(run_id, checkpoint) for checkpoint in run.models}
    for data, metrics in groupby(sorted(run.metrics, key=lambda one: one.data), key=lambda one: one.data):
        name, _, digest = data.rpartition(" ")
        store.log(run_id, list(_points(metrics, models)), (name, digest) if name else None)


def _points(metrics: Iterable[Logged], models: Mapping[int, str]) -> Iterator[Point]:
    for one in metrics:
        model = "" if one.checkpoint is None else models.get(one.checkpoint, "")
        yield Point(one.name, one.value, one.step, one.time / 1000, model)
