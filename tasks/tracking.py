"""MLflow: one store, explicit run ids, no run left RUNNING by a dead process. Nothing else imports MLflow, but what
this module is made of."""

from __future__ import annotations

import functools
import getpass
import json
import math
import os
import re
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, cast
from urllib.parse import urlparse

# MLflow looks while it is imported.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import mlflow
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    Metric,
    Param,
    Run,
    RunTag,
    ViewType,
)
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from holdfast.config.refs import DataRef
from holdfast.errors import UserError, brief, writing
from tasks import server_probe
from tasks.artifacts import Artifacts
from tasks.interrupts import Uninterrupted
from tasks.logged_models import Models
from tasks.logged_models import RegistryFailed as RegistryFailed
from tasks.paging import pages
from tasks.redaction import redacted, without_password
from tasks.run_owner import HEARTBEAT_TIMEOUT, Heartbeat, heartbeat_tag, owner_alive, owner_tags

TAG_LIMIT, PARAM_LIMIT, DIGEST_LIMIT = 5000, 6000, 36
SHORTEST_ID, WHOLE_ID = 4, 32
LISTED = 1.0
"""Seconds for which the list of experiments is taken for the present one."""
METRICS_A_BATCH, PARAMS_A_BATCH, IDS_A_QUERY = 1000, 100, 100
ID = re.compile("[0-9a-f]*")
ERROR = "holdfast.error"
"""Tag with why a run did not finish."""
PAGE_ADDRESS = "HOLDFAST_MLFLOW_PAGE"
"""Environment variable: the server's address for a person's browser, where that differs from the program's."""


class Point(NamedTuple):
    """A metric's value at a step."""

    name: str
    value: float
    step: int
    time: float
    """Seconds since the epoch. The journal's, so that logging a line again changes nothing."""
    model: str = ""
    """Id of the logged model that it was measured on."""


@functools.cache
def open_store(root: Path) -> Store:
    """The store of a repository, opened once in a process."""
    return Store(root)


def _client(uri: str) -> MlflowClient:
    client = MlflowClient(uri)
    served = urlparse(uri).scheme in ("http", "https")
    return client if served else cast(MlflowClient, Uninterrupted(client))


class Store:
    """MLFLOW_TRACKING_URI, or mlruns/ below `root`: SQLite with the artifacts beside it."""

    def __init__(self, root: Path) -> None:
        """Raises UserError within seconds where the store cannot be used."""
        self.root = root.resolve()
        self.directory = self.root / "mlruns"
        with writing(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
        self.uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.directory / 'mlflow.db'}"
        server_probe.probe(self.uri, lambda: _experiments_answer(self.uri))
        if urlparse(self.uri).scheme in ("http", "https"):
            server_probe.probe_artifacts(self.uri, lambda: _artifacts_answer(self.uri))
        with server_probe.explained(self.uri), server_probe.alone(self.uri):
            mlflow.set_tracking_uri(self.uri)
            self.client = _client(self.uri)
            self.client.search_experiments(max_results=1)
        self.models = Models(self.client)
        self.experiment_ids: dict[str, str] = {}
        self._listed: tuple[list[str], float] = [], -math.inf
        self._listing = threading.Lock()
        self.artifacts = Artifacts(self.client, self.uri, self.directory / "cache")
        self.heartbeat = Heartbeat(self._renew)

    @property
    def shown(self) -> str:
        """The store's address for a person."""
        return without_password(self.uri)

    def link(self, run_id: str, artifact: str = "") -> str:
        """Where MLflow's page shows a run, or one of its artifacts; without a server, the run's id and the store."""
        page = os.environ.get(PAGE_ADDRESS) or self.uri
        if not urlparse(page).scheme.startswith("http"):
            return f"run {run_id} in {self.shown}"
        experiment = self.client.get_run(run_id).info.experiment_id
        # Otherwise a browser that sees the page for the first time shows it among evaluations of agents.
        kind = "workflowType=machine_learning"
        place = f"#/experiments/{experiment}/runs/{run_id}{f'/artifacts/{artifact}' if artifact else ''}?{kind}"
        return f"{without_password(page).rstrip('/')}/{place}"

    def experiment(self, name: str) -> str:
        """Id of the experiment, made if need be."""
        if name not in self.experiment_ids:
            found = self.client.get_experiment_by_name(name)
            if found is not None and found.lifecycle_stage == "deleted":
                raise UserError(f"{self.shown}: the experiment {name} is deleted; restore it or rename the study")
            self.experiment_ids[name] = found.experiment_id if found else self._create_experiment(name)
        return self.experiment_ids[name]

    def _create_experiment(self, name: str) -> str:
        local = self.uri.startswith("sqlite:")
        place = (self.directory / "artifacts" / name).as_uri() if local else None
        # MLflow's page then opens on training runs and their charts, not on traces.
        kind = {"mlflow.experimentKind": "custom_model_development"}
        try:
            return self.client.create_experiment(name, artifact_location=place, tags=kind)
        except MlflowException:
            # Two studies that begin at the same moment both find none.
            found = self.client.get_experiment_by_name(name)
            if found is None:
                raise
            return found.experiment_id
        finally:
            with self._listing:
                self._listed = [], -math.inf

    def begin(self, experiment: str, name: str, tags: dict[str, str], started: int | None = None) -> str:
        """Open a run that belongs to this process; returns its id. It `started` now, or then, in milliseconds."""
        everything = {
            "mlflow.user": _user(),
            "mlflow.source.name": "holdfast",
            "mlflow.source.type": "LOCAL",
            **owner_tags(),
            **tags,
        }
        run = self.client.create_run(self.experiment(experiment), started, everything, name)
        run_id = run.info.run_id
        self.heartbeat.begin(run_id)
        return run_id

    def reopen(self, run_id: str, tags: dict[str, str]) -> None:
        """Continue an interrupted run in this process."""
        self.client.update_run(run_id, status="RUNNING")
        self.tag(run_id, {**owner_tags(), **tags, ERROR: ""})
        self.heartbeat.begin(run_id)

    def end(self, run_id: str, status: str, error: str = "", ended: int | None = None) -> None:
        """Set a run FINISHED, FAILED or KILLED; it `ended` now, or then, in milliseconds."""
        self.heartbeat.end(run_id)
        if error:
            self.tag(run_id, {ERROR: redacted(error)})
        self.client.set_terminated(run_id, status, ended)

    def delete(self, run: Run) -> None:
        """Delete a run and its logged models, as MLflow does: both can be restored until `mlflow gc`."""
        self.heartbeat.end(run.info.run_id)
        self.models.delete(run)
        self.client.delete_run(run.info.run_id)

    def owners(self, query: str) -> list[dict[str, str]]:
        """Tags of the runs that a query finds and that tell which process began them."""
        return [run.data.tags for run in self.search(query) if "holdfast.pid" in run.data.tags]

    def reap(self, silence: float = HEARTBEAT_TIMEOUT) -> list[str]:
        """Set KILLED what dead processes left RUNNING, on whatever host they were; returns the run ids."""
        running = self.search("attributes.status = 'RUNNING' and tags.`holdfast.pid` != ''")
        dead = [run.info.run_id for run in running if not owner_alive(run.data.tags, silence)]
        for run_id in dead:
            self.end(run_id, "KILLED", "its process died")
        return dead

    def _renew(self, run_ids: Sequence[str]) -> None:
        for run_id in run_ids:
            self.tag(run_id, heartbeat_tag())
            ended = self.client.get_run(run_id).info.status != "RUNNING"
            # Another machine whose clock jumped took this process for dead.
            if ended and self.heartbeat.is_open(run_id):
                self.client.update_run(run_id, status="RUNNING")
                self.tag(run_id, {ERROR: ""})
        self.reap()

    def search(
        self, query: str, experiment: str | None = None, most: int | None = None, view: int = ViewType.ACTIVE_ONLY
    ) -> list[Run]:
        """Runs of one experiment (its id), or of all; latest first, at most so many. Deleted ones as `view` says."""
        within = [experiment] if experiment else self.experiments()
        latest = ["attributes.start_time DESC"]
        found = pages(lambda **page: self.client.search_runs(within, query, view, order_by=latest, **page), most)
        # A run that begins between two pages moves the others, and one comes twice.
        return list({run.info.run_id: run for run in islice(found, most)}.values())

    def experiments(self) -> list[str]:
        """Ids of all experiments, as they were within the last second: a study asks a hundred times in a few."""
        with self._listing:
            if time.monotonic() - self._listed[1] > LISTED:
                listed = [one.experiment_id for one in pages(self.client.search_experiments)]
                self._listed = listed, time.monotonic()
            return self._listed[0]

    def deleted(self) -> list[Run]:
        """Runs that were deleted and are still in the store."""
        return self.search("", view=ViewType.DELETED_ONLY)

    def with_ids(self, run_ids: Iterable[str], view: int = ViewType.ACTIVE_ONLY) -> list[Run]:
        """Those of these runs that are there."""
        ids = sorted(run_ids)
        parts = [ids[start : start + IDS_A_QUERY] for start in range(0, len(ids), IDS_A_QUERY)]
        queries = ["attributes.run_id IN (" + ", ".join(f"'{one}'" for one in part) + ")" for part in parts]
        return [run for query in queries for run in self.search(query, view=view)]

    def children(self, run_id: str) -> list[Run]:
        """The runs below another one, latest first."""
        return self.search(f"tags.`mlflow.parentRunId` = '{run_id}'")

    def named(self, name: str) -> list[Run]:
        """Runs of a name, latest first."""
        # MLflow's filters know no escape; names of runs here have no quotes.
        return [] if "'" in name else self.search(f"attributes.run_name = '{name}'")

    def run(self, prefix: str) -> Run:
        """The one run whose id begins so. UserError unless there is exactly one."""
        if len(prefix) == WHOLE_ID:
            with suppress(MlflowException):
                return self.client.get_run(prefix)
        if len(prefix) < SHORTEST_ID:
            raise UserError(f"{brief(prefix)}: is too short; give {SHORTEST_ID} characters or more of a run's id.")
        # Anything else is no beginning of an id, and could be a pattern.
        runs = self.search(f"attributes.run_id LIKE '{prefix}%'") if ID.fullmatch(prefix) else []
        if len(runs) != 1:
            raise UserError(f"{brief(prefix)}: {len(runs)} runs in {self.shown} begin so; give more of the run's id.")
        return runs[0]

    def find(self, run_id: str) -> Run | None:
        """The run of a whole id; None where there is none, or where it is deleted."""
        try:
            run = self.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return run if run.info.lifecycle_stage == "active" else None

    def with_key(self, key: str) -> list[Run]:
        """Runs of a stage, whatever became of them, latest first."""
        return self.search(f"tags.`holdfast.stage_key` = '{key}'")

    def tag(self, run_id: str, tags: dict[str, str]) -> None:
        self.client.log_batch(run_id, tags=[RunTag(k, v[:TAG_LIMIT]) for k, v in tags.items()])

    def params(self, run_id: str, params: dict[str, str]) -> None:
        """Log the parameters of a run that just began."""
        items = [Param(name, value[:PARAM_LIMIT]) for name, value in params.items()]
        for start in range(0, len(items), PARAMS_A_BATCH):
            self.client.log_batch(run_id, params=items[start : start + PARAMS_A_BATCH])

    def log(self, run_id: str, points: Sequence[Point], data: tuple[str, str] | None = None) -> None:
        """Log metrics; those of a model also stand on it, with `data` (name and digest) if given."""
        metrics = [_metric(point, data) for point in points]
        for start in range(0, len(metrics), METRICS_A_BATCH):
            self.client.log_batch(run_id, metrics=metrics[start : start + METRICS_A_BATCH])

    def logged(self, run_id: str) -> set[tuple[str, int]]:
        """Every metric and step that a run has."""
        names = self.client.get_run(run_id).data.metrics
        return {(name, m.step) for name in names for m in self.client.get_metric_history(run_id, name)}

    def values(self, run_id: str, names: Iterable[str]) -> dict[tuple[str, int], float]:
        """The latest value of each of these metrics at each step."""
        known = self.client.get_run(run_id).data.metrics
        history = (m for name in names if name in known for m in self.client.get_metric_history(run_id, name))
        return {(m.key, m.step): m.value for m in sorted(history, key=lambda metric: metric.timestamp)}

    def dataset(self, run_id: str, data: DataRef, digest: str) -> None:
        """Say which version of the data a run read."""
        dataset = Dataset(data.path.name, digest[:DIGEST_LIMIT], "local", json.dumps({"uri": str(data.path)}))
        given = [DatasetInput(dataset, [InputTag("mlflow.data.context", "study")])]
        try:
            self.client.log_inputs(run_id, datasets=given)
        except MlflowException:
            # Two stages that are the first to name a data set at the same moment both insert it; MLflow lets one fail.
            self.client.log_inputs(run_id, datasets=given)


def _experiments_answer(uri: str) -> Any:
    """A server's answer to a question that every server has an answer to, without retries."""
    place, limit = "/api/2.0/mlflow/experiments/search", server_probe.ANSWER_LIMIT
    question = {"max_results": 1}
    given = get_default_host_creds(uri)
    return http_request(given, place, "POST", max_retries=0, timeout=limit, raise_on_status=False, json=question)


def _artifacts_answer(uri: str) -> Any:
    """A server's answer to what artifacts it hands out, without retries."""
    place, limit = "/api/2.0/mlflow-artifacts/artifacts", server_probe.ANSWER_LIMIT
    return http_request(get_default_host_creds(uri), place, "GET", max_retries=0, timeout=limit, raise_on_status=False)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container's user often has a number and no name.
        return str(os.getuid())


def _metric(point: Point, data: tuple[str, str] | None) -> Metric:
    name, digest = data if data and point.model else (None, None)
    return Metric(
        point.name,
        point.value,
        round(point.time * 1000),
        point.step,
        model_id=point.model or None,
        dataset_name=name,
        dataset_digest=digest[:DIGEST_LIMIT] if digest else None,
    )


@contextmanager
def ending(store: Store, run_id: str, killed: tuple[type[BaseException], ...] = ()) -> Iterator[None]:
    """End a run as its block ends: FINISHED, KILLED for the named exceptions, FAILED for any other."""
    try:
        yield
    except BaseException as error:
        # An interrupt is no Exception.
        status = "KILLED" if isinstance(error, killed) or not isinstance(error, Exception) else "FAILED"
        # Where the store itself fails, the first error is what to tell; the next command ends the run.
        with suppress(Exception):
            store.end(run_id, status, str(error) or type(error).__name__)
        raise
    store.end(run_id, "FINISHED")
