"""Offer flows to a Prefect server: run here on request and by schedule, or given to a work pool's workers."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from prefect import serve
from prefect.client.orchestration import get_client
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings

from flows.automations import automations, set_automations
from flows.commands.experiment import load_experiment, load_timetable
from flows.commands.server import check_server
from flows.deployments import Experiment, deployments, of_experiment, pause, register, watch_deployment
from holdfast.errors import UserError
from tasks.run_owner import HEARTBEAT_TIMEOUT
from tasks.tracking import Store, open_store

PATIENCE = timedelta(minutes=15)
"""For a worker to begin a run that it took; pulling an image takes minutes."""
SHARED = "runs"
"""Name of the watch over an MLflow server's runs."""


def read_experiments(
    commands: Mapping[Path, str], overrides: Sequence[str], cron: str | None = None
) -> list[Experiment]:
    """What files describe, each with its command. UserError on anything wrong, where two of them have one name, and
    where there is none for `cron`."""
    if cron is not None and not commands:
        raise UserError(f"--cron: {cron!r} schedules nothing without an experiment; name its FILE or leave --cron out.")
    found: dict[str, Path] = {}
    experiments = []
    for file, command in commands.items():
        config, timetable = load_experiment(file, overrides), load_timetable(file, overrides, cron)
        if config.name in found:
            raise UserError(f"{file}: name: {found[config.name]} has the same, {config.name}; change one of them.")
        found[config.name] = file
        experiments.append(Experiment(config, timetable, command))
    return experiments


def serve_experiments(experiments: Sequence[Experiment], limit: int | None = None) -> None:
    """Run them, and any other flow, whenever the Prefect server asks, until stopped. UserError without a server."""
    _require_servers()
    offered = deployments(experiments)
    try:
        # Prefect would pause every name when this ends, also those that others serve.
        serve(*offered, _watch(), limit=limit, pause_on_shutdown=False)
    finally:
        # Runs of an experiment that are due while nobody serves it would all run at the next start.
        pause(offered)


def serve_watch(silence: float) -> None:
    """Look after runs until stopped. UserError without a server."""
    _require_servers()
    serve(_watch(silence), pause_on_shutdown=False)


def deploy_experiments(experiments: Sequence[Experiment], pool: str) -> list[str]:
    """Give them to a work pool; returns the deployments' names. UserError without a server or the pool."""
    _require_servers(store=False)
    offered = [of_experiment(experiment) for experiment in experiments]
    register(offered, pool)
    return [deployment.full_name for deployment in offered]


def watch_name(store: Store) -> str:
    """Of the watch over a store's runs: `runs` for a server, which any process can ask, else one for these files.

    A watch that takes the runs of another store knows none of their processes.
    """
    address = urlparse(store.uri)
    if address.scheme not in ("sqlite", "file", ""):
        return SHARED
    files = Path(address.path[1:] if address.scheme == "sqlite" else address.path).resolve()
    return f"{socket.gethostname()}-{hashlib.sha256(bytes(files)).hexdigest()[:8]}"


def _watch(silence: float | None = None) -> RunnerDeployment:
    """The watch with its automations; without `silence` what it was set up with before, if it was."""
    name = watch_name(open_store(Path.cwd()))
    silence = silence or _silence(f"watch/{name}")
    deployment = watch_deployment(name, silence)
    applied: Any = deployment.apply()
    suffix = "" if name == SHARED else f" of {name}"
    set_automations(automations(applied, timedelta(seconds=silence), PATIENCE, suffix))
    return deployment


def _silence(known: str) -> float:
    with get_client(sync_client=True) as client:
        try:
            return float(client.read_deployment_by_name(known).parameters.get("silence", HEARTBEAT_TIMEOUT))
        except ObjectNotFound:
            return HEARTBEAT_TIMEOUT


def _require_servers(store: bool = True) -> None:
    if not get_current_settings().api.url:
        raise UserError(
            "PREFECT_API_URL: is not set; start a server with `make ui` and set its address, ending in /api."
        )
    check_server()
    if store:
        open_store(Path.cwd())
